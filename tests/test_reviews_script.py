"""launch/reviews.sh with a stand-in for python: its commands are valid, its rows are those of the table, none twice."""

import os
import subprocess
from pathlib import Path

import pytest

from jtextdiff import evaluate
from jtextdiff.run.config_files import load_config

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "launch" / "reviews.sh"

PYTHON = """#!/bin/sh
echo "$@" >>calls
for flag; do
  case "$last" in --out) echo '{}' >"$flag" ;; --workdir) mkdir -p "$flag" ;; esac
  case "$flag" in
    --config.base=*) base="${flag#*=}" ;;
    --config.method.velocity=*) mkdir -p "$base/flows/mood"
      echo "\\"velocity\\": \\"${flag#*=}\\"" >"$base/flows/mood/config.json" ;;
  esac
  last="$flag"
done
"""

STOPS, PUSHES = ("0.5", "0.9", "0.99", "0.999"), ("0.5", "1", "1.5", "2")
MODELS = ("levels", "single", "single-more-nats")
ENERGY = {f"{model}-{kind}-energy.{p}" for model in MODELS for kind in ("200", "all") for p in STOPS}
LEARNED = {f"levels-all-{velocity}.{push}" for velocity in ("shift", "normal", "network") for push in PUSHES}
LEARNED |= {f"levels-all-network+energy.{p}" for p in STOPS}
GUIDED = {f"single-more-nats-200-words.{p}" for p in ("0.97", "0.99")}
CHOSEN = [f"200-{row}.{p}" for row in ("minimal", "rerank") for p in ("0.8", "0.9", "0.97")]
GUIDED |= {f"{model}-{row}" for model in ("levels", "single-more-nats") for row in CHOSEN}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def commands(place: Path, steps: str = "80") -> list[list[str]]:
    """Runs the script and returns the arguments of all commands of this run."""
    (place / "calls").unlink(missing_ok=True)
    env = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", SCRIPT, "data", "mood", "out", steps], cwd=place, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [line.split()[1:] for line in (place / "calls").read_text().splitlines()]


def edits(calls: list[list[str]]) -> dict[str, list[str]]:
    """The commands that score edits, by the name of their file."""
    return {Path(call[-1]).name.removesuffix(".json.part"): call for call in calls if "--edits" in call}


def test_rows_are_those_of_the_table_and_guided_where_they_should_be(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = edits(commands(place))
    assert set(rows) == ENERGY | LEARNED | GUIDED | {"cvae-label.all"}
    monkeypatch.chdir(place)
    assert {path.name for path in Path("out/edits").iterdir()} == {f"{row}.json" for row in rows}
    for row, call in rows.items():
        flags = evaluate.build_parser().parse_args(call[1:])
        evaluate.check_flags(flags)
        guidance = (0, 0) if row in ENERGY | LEARNED else (2, 1) if "-words" in row else (None, None)
        assert (flags.word_guidance, flags.word_hold) == guidance, row
        assert flags.minimal is (False if "-words" in row else None), row
        assert bool(flags.rerank) == ("rerank" in row) and bool(flags.learned) == (row in LEARNED), row
        assert (flags.num, flags.judge_text, flags.judge) == (1000, "data/judge", "out/judge")


def test_trainings_are_valid_and_the_baseline_has_the_label_as_an_input(place: Path) -> None:
    trainings = [call for call in commands(place) if call[0] == "jtextdiff.train"]
    configs = []
    for call in trainings:
        flags = dict(zip(call[1::2], call[2::2], strict=False))
        configs.append((call, load_config(flags["--config"], [flag for flag in call if flag.startswith("--config.")])))
    (cvae,) = (config for call, config in configs if "latent_ops.py:cvae" in " ".join(call))
    assert (cvae.method.condition, cvae.text.path, cvae.num_steps) == ("mood", "data/whole", 30)
    vaes = [config for _, config in configs if "latent_dim" in config.method and not config.method.condition]
    assert len(vaes) == 3 and {config.num_steps for config in vaes} == {80}
    sizes = {(c.method.latent_dim, c.method.encoder.num_layers, c.method.decoder.num_layers) for c in [cvae, *vaes]}
    assert sizes == {(128, 4, 4)}


def test_finished_rows_are_not_made_again(place: Path) -> None:
    commands(place)
    (place / "out/edits/levels-all-shift.1.json").unlink()
    assert list(edits(commands(place))) == ["levels-all-shift.1"]
