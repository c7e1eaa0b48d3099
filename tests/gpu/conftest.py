"""Tests of a GPU against this machine's CPU: `pytest -m gpu`. Without a GPU they are skipped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def on_gpu() -> None:
    if jax.default_backend() != "gpu":
        pytest.skip("there is no GPU")


@pytest.fixture
def on_cpu() -> Callable[..., Any]:
    """Calls a function on the CPU, in float64 if `double`; all floating-point arguments are converted."""

    def call(function: Callable[..., Any], *arguments: Any, double: bool = False) -> Any:
        with jax.enable_x64(double), jax.default_device(jax.devices("cpu")[0]):
            return jax.tree.map(np.asarray, function(*jax.tree.map(lambda leaf: _on_host(leaf, double), arguments)))

    return call


def _on_host(leaf: Any, double: bool) -> Any:
    if not isinstance(leaf, jax.Array):
        return leaf
    leaf = jax.device_put(leaf, jax.devices("cpu")[0])
    return leaf.astype(jnp.float64) if double and leaf.dtype == jnp.float32 else leaf
