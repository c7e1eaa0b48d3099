"""Checkpoints: saving and restoring, and errors for one of another network or a missing step."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.run.checkpoints import open_checkpoints, restore, save, shapes_of

MODEL = {"answer": {"kernel": jnp.arange(6.0).reshape(2, 3)}}


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    with open_checkpoints(tmp_path) as manager:
        save(manager, 3, MODEL, {"step": jnp.asarray(3)}, 1.0)
        manager.wait_until_finished()
    return tmp_path


def shapes(model: dict) -> dict:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    plain = shapes_of(model)
    return shapes_of(plain, jax.tree.map(lambda _: device, plain))


def test_a_checkpoint_round_trip(workdir: Path) -> None:
    found = restore(workdir, {"model": shapes(MODEL)})
    assert found is not None
    step, parts = found
    assert step == 3
    jax.tree.map(np.testing.assert_array_equal, parts["model"], MODEL)


def test_a_checkpoint_of_another_network_is_refused(workdir: Path) -> None:
    """It is not damaged, so no older one replaces it."""
    wider, other = ({"answer": {name: jnp.zeros((2, 5))}} for name in ("kernel", "bias"))
    with pytest.raises(UserError, match=r"answer.kernel is \(2, 3\) there, \(2, 5\) here"):
        restore(workdir, {"model": shapes(wider)})
    with pytest.raises(UserError, match=r"answer.bias is None there, \(2, 5\) here"):
        restore(workdir, {"model": shapes(other)})


def test_the_error_for_a_missing_step_lists_the_saved_ones(workdir: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint of step 2; it has those of steps \[3\]"):
        restore(workdir, {"model": shapes(MODEL)}, at=2)


def test_restore_without_checkpoints_returns_none(tmp_path: Path) -> None:
    assert restore(tmp_path, {"model": shapes(MODEL)}) is None
