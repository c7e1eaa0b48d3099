"""What every test runs under: strict jax, no network, and a cache of its own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before jax is imported, and for the subprocesses that tests start.
os.environ["JAX_DEBUG_KEY_REUSE"] = "1"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiling is most of what tests do: half the time without
os.environ["HF_HUB_OFFLINE"] = "1"

STRICT_RANKS = [Path(__file__).parent / "diffusion", Path(__file__).parent / "sampling"]
"""Arrays of different ranks may not meet here: a missing axis in the mathematics would broadcast silently."""


@pytest.fixture(scope="session", autouse=True)
def own_cache() -> Iterator[None]:
    """Corpora are prepared in a folder of the session, never in the user's."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JTEXTDIFF_CACHE", folder)
        yield


@pytest.fixture(autouse=True)
def strict_ranks(request: pytest.FixtureRequest) -> Iterator[None]:
    if not any(folder in request.path.parents for folder in STRICT_RANKS):
        yield
        return
    import jax

    with jax.numpy_rank_promotion("raise"):
        yield
