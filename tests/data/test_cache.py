"""Where the cache is for a user without a home directory, as in a container."""

import os
import pwd
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from jtextdiff.data.cache import cache_root, give_hub_a_home, store


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without HOME and without an entry in the system's list of users. Returns the folder of temporary files."""

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "JTEXTDIFF_CACHE", "HF_HOME"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_user_without_a_home_has_a_private_folder_that_is_found_again(homeless: Path) -> None:
    folder = cache_root()
    assert folder.parent == homeless and folder.stat().st_mode & 0o777 == 0o700
    assert cache_root() == folder


@pytest.mark.parametrize("kind", ["writable", "link", "file"])
def test_a_folder_that_others_may_write_to_is_not_used(homeless: Path, kind: str) -> None:
    """Compiled programs are read from the cache and run."""
    place, elsewhere = homeless / f"jtextdiff-{os.getuid()}", homeless / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if kind == "writable":
        place.mkdir()
        place.chmod(0o777)
    elif kind == "link":
        place.symlink_to(elsewhere)
    else:
        place.touch()
    folder = cache_root()
    assert folder != place and folder.resolve() != elsewhere and folder.stat().st_mode & 0o777 == 0o700


def test_hub_downloads_of_a_user_without_a_home_are_in_the_cache(homeless: Path) -> None:
    give_hub_a_home()
    assert Path(os.environ["HF_HOME"]) == cache_root() / "huggingface"


def test_a_home_is_left_to_the_hub(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(homeless))
    give_hub_a_home()
    assert "HF_HOME" not in os.environ and cache_root() == homeless / ".cache" / "jtextdiff"


def test_folders_of_interrupted_writing_are_removed_after_a_day(tmp_path: Path) -> None:
    empty = {"splits": {}, "label_values": {}, "notes": []}
    for name, age in (("writing-old", 25 * 3600), ("writing-new", 3600), ("corpus-old", 25 * 3600)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    store(tmp_path / "corpus", SimpleNamespace(save=lambda folder: None), **empty)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["corpus", "corpus-old", "writing-new"]
