"""Checkpoints: saving, reading back, restoring, and errors for paths, another network or a missing step."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.run.checkpoints import (
    check_path,
    confirm_newest,
    has_checkpoints,
    open_checkpoints,
    restore,
    save,
    shapes_of,
)

MODEL = {"answer": {"kernel": jnp.arange(6.0).reshape(2, 3)}}
TRAINING = {"step": jnp.asarray(3)}


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    with open_checkpoints(tmp_path) as manager:
        save(manager, 3, MODEL, TRAINING, 1.0)
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


@pytest.mark.parametrize("name", ["lr=[0.1,0.2]", "a[b", "a\\b", "a*", "a**b", "a?", "gs:"])
def test_a_path_whose_checkpoints_would_be_lost_is_refused(name: str, tmp_path: Path) -> None:
    for workdir in (tmp_path / name, tmp_path / name / "run"):
        with pytest.raises(UserError, match="could not be read again"):
            check_path(workdir)


@pytest.mark.parametrize("name", ["]{}()<>|&;,:!#%20$^`~'\" +=@-_.é日", "~", "-x", "a\nb"])
def test_a_path_that_is_not_refused_holds_checkpoints(name: str, tmp_path: Path) -> None:
    check_path(workdir := tmp_path / name)
    with open_checkpoints(workdir) as manager:
        save(manager, 3, MODEL, TRAINING, 1.0)
    found = restore(workdir, {"model": shapes(MODEL), "training": shapes(TRAINING)})
    assert found is not None and found[1]["training"]["step"] == 3


def empty(folder: Path) -> None:
    """Damages a part of a checkpoint."""
    for file in (file for file in folder.rglob("*") if file.is_file()):
        file.write_bytes(b"")


@pytest.mark.parametrize("part", ["model", "training"])
def test_the_first_checkpoint_is_read_back_at_once(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_checkpoints(tmp_path) as manager:
        write = manager.save

        def write_and_damage(step: int, **what: object) -> None:
            write(step, **what)
            manager.wait_until_finished()
            empty(tmp_path / "checkpoints" / str(step) / part)

        monkeypatch.setattr(manager, "save", write_and_damage)
        with pytest.raises(OSError, match="of step 3, just written .* cannot be read back .*; there is no other"):
            save(manager, 3, MODEL, TRAINING, 1.0)


@pytest.mark.parametrize("part", ["model", "training"])
def test_each_later_checkpoint_is_read_back_before_the_next(part: str, tmp_path: Path) -> None:
    with open_checkpoints(tmp_path) as manager:
        for step in (3, 4):
            save(manager, step, MODEL, TRAINING, 1.0)
        assert confirm_newest(manager, MODEL, TRAINING) == 4
        empty(tmp_path / "checkpoints" / "4" / part)
        with pytest.raises(OSError, match=r"of step 4, .* cannot be read back .*those of steps \[3\] are kept"):
            save(manager, 5, MODEL, TRAINING, 1.0)
    found = restore(tmp_path, {"model": shapes(MODEL)}, at=3)
    assert found is not None
    assert not (tmp_path / "checkpoints" / "5").exists()


def test_a_folder_whose_path_is_not_utf8_is_named(tmp_path: Path) -> None:
    """Else its checkpoints, which cannot be opened, would look damaged."""
    folder = tmp_path / "caf\udce9"
    for refuses in (has_checkpoints, check_path):
        with pytest.raises(UserError, match=r"caf\\xe9/checkpoints is not in UTF-8"):
            refuses(folder)


def test_a_checkpoint_that_was_removed_or_may_be_whole_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*arguments: object, **settings: object) -> None:
        raise MemoryError

    with open_checkpoints(tmp_path) as manager:
        save(manager, 3, MODEL, TRAINING, 1.0)
        monkeypatch.setattr("jtextdiff.run.checkpoints._read", no_memory)
        with pytest.raises(MemoryError):
            confirm_newest(manager, MODEL, TRAINING)
        shutil.rmtree(tmp_path / "checkpoints" / "3")
        assert confirm_newest(manager, MODEL, TRAINING) is None
