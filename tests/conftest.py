"""What every test runs under: strict jax that compiles fast, no network, and a cache that the whole session shares."""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

# Before jax is imported, and for the subprocesses that tests start.
os.environ["JAX_DEBUG_KEY_REUSE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# Compiling is most of what tests do. It takes half the time without most optimisations, and a third less again without
# the emitters of fused loops, and a few per cent less where a program's code is generated in one piece; a jaxlib that
# does not know a flag would end at it.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # all workers share a GPU, if there is one
if version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

STRICT_RANKS = [Path(__file__).parent / "diffusion", Path(__file__).parent / "sampling"]
"""Arrays of different ranks may not meet here: a missing axis in the mathematics would broadcast silently."""

LONGEST = ["test_end_to_end.py", "test_kills.py", "test_notebooks.py", "test_latent_editing.py", "test_sharding.py"]
LONGEST += ["test_layerwise_latents.py", "test_import.py", "test_grammar_is_learned.py"]
"""The files of slow tests that take longest. They are first, so that no worker is left alone with one at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """One folder for all workers and their subprocesses: prepared corpora, compiled programs, trained models.

    $JTEXTDIFF_TEST_CACHE names one that several sessions share; it stays when they end.
    """
    if config.getoption("markexpr") == "gpu":
        del os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]  # what users run is what is compared
    if hasattr(config, "workerinput"):
        return
    folder = os.environ.get("JTEXTDIFF_TEST_CACHE")
    if folder is None:
        folder = tempfile.mkdtemp(prefix="jtextdiff-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.makedirs(folder, exist_ok=True)
    os.environ["JTEXTDIFF_CACHE"] = folder
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"  # where commands keep theirs
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Tracing makes many objects and few cycles, of which the collector looked for an eighth of the time.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def strict_ranks(request: pytest.FixtureRequest) -> Iterator[None]:
    if not any(folder in request.path.parents for folder in STRICT_RANKS):
        yield
        return
    import jax

    with jax.numpy_rank_promotion("raise"):
        yield
