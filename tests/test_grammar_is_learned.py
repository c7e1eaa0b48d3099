"""The embedded text is hard for a trigram and learnable by a model that reads the whole sentence."""

import json
from pathlib import Path

import pytest
from support.command_line import run_optimized

ROOT = Path(__file__).parents[1]
SHORT = ("--config.num_steps=200", "--config.method.trunk.num_layers=2")


@pytest.mark.slow
def test_a_small_autoregressive_model_learns_what_a_trigram_cannot(tmp_path: Path) -> None:
    """8 % of a Kneser–Ney trigram's samples are sentences of the grammar. Two layers must give many more after a
    twentieth of the default training."""
    config = f"--config={ROOT}/configs/autoregressive.py"
    run_optimized("train", config, "--workdir=run", *SHORT, cwd=tmp_path)
    run_optimized("evaluate", "--checkpoint=run", "--num=256", "--out=scores.json", cwd=tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())["metrics"]
    assert scores["members"]["value"] - 5 * scores["members"]["se"] > 0.2
    assert scores["diversity_guard"]["value"] == 1.0
    # No model is better than the grammar itself: 25.35 nats over 20.6 tokens a sentence.
    assert scores["nll"]["value"] + 5 * scores["nll"]["se"] > 1.23
