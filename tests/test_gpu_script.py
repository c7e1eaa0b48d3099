"""launch/gpu.sh with a stand-in for python: its commands, its table, and what it does if it is run again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "launch" / "gpu.sh"
RESULT = {"device": "X100", "step_ms": 12.34, "tokens_per_second": 5e4, "share_of_machine": 0.5, "compile_s": 3.0}

PYTHON = f"""#!/bin/sh
if [ "$1" = - ]; then exec {sys.executable} "$@"; fi
echo "$@" >>calls
case "$*" in *FAILS*) echo cut; exit 1 ;; esac
echo '{json.dumps(RESULT)}'
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def run(place: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", **env}
    return subprocess.run(["bash", SCRIPT, *arguments], cwd=place, env=env, capture_output=True, text=True, timeout=60)


def calls(place: Path) -> list[str]:
    return (place / "calls").read_text().splitlines() if (place / "calls").exists() else []


def test_results_are_kept_and_tabled_and_not_computed_twice(place: Path) -> None:
    done = run(place, "out", "train", TEXT="my.txt", STEPS="7")
    assert done.returncode == 0, done.stderr
    assert len(calls(place)) == 8 and all("--config.text.path=my.txt" in call for call in calls(place))
    assert sum("jtextdiff.benchmark train" in call and "--num_steps 7" in call for call in calls(place)) == 4
    assert sum("jtextdiff.train" in call and "--dry_run" in call for call in calls(place)) == 4
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("train-diffusion_lm-e2e"))
    assert row.split() == ["train-diffusion_lm-e2e", "X100", "12.3", "50,000", "50%", "3.0", "-"]
    assert run(place, "out", "train").stdout == done.stdout and len(calls(place)) == 8


def test_all_parts_run_without_one_named(place: Path) -> None:
    assert run(place, "out").returncode == 0
    for command in ("pytest -m gpu", "benchmark train", "--dry_run", "control.py:paper", "benchmark guide"):
        assert any(command in call for call in calls(place)), command


def test_a_part_that_fails_is_named_and_tried_again(place: Path) -> None:
    failed = run(place, "out", "train", FLAGS="FAILS")
    assert failed.stderr.count("failed: ") == 8 and not list((place / "out").glob("*.json"))
    assert run(place, "out", "train").stdout.count("X100") == 4


def test_an_unknown_part_is_one_line(place: Path) -> None:
    done = run(place, "out", "speed")
    assert done.returncode == 2 and "unknown part 'speed'" in done.stderr and not calls(place)


def test_long_parts_train_to_the_end_and_score(place: Path) -> None:
    env = {"TEXT": "my.txt", "LABELS": "food area", "LONG": "9"}
    done = run(place, "out", "e2e", "masked", "latent", **env)
    assert done.returncode == 0, done.stderr
    names = "scores gaps targets-food targets-area characters-masked characters-autoregressive characters-d3pm edits"
    assert sorted(file.stem for file in (place / "out").glob("*.json")) == sorted(names.split())
    trained = [call for call in calls(place) if "jtextdiff.train" in call]
    assert len(trained) == 2 + 2 + 3 + 2
    assert sum("--config.text.path=my.txt" in call for call in trained) == 2 + 3 + 1  # a control has its base's text
    assert sum("--config.num_steps=9" in call for call in trained) == 3
    compared = [call.count(".json") for call in calls(place) if "jtextdiff.compare" in call]
    assert compared == [1, 1, 1, 1, 3]
    before = sum("evaluate" in call for call in calls(place))
    run(place, "out", "e2e", "masked", "latent", **env)
    assert sum("evaluate" in call for call in calls(place)) == before
