"""A published GPT-2 judges texts of any run, in its own tokens."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support import published_bert, published_gpt2
from support.command_line import run
from support.published_gpt2 import config_json, log_likelihood, write_byte_tokenizer, write_checkpoint
from support.runs import TEXTS, trained, write_texts

from jtextdiff.cli.errors import UserError
from jtextdiff.evaluation.likelihood import check_judge, generative_perplexity, judge_nll, judged_texts, load_judge
from jtextdiff.inference.model import Model

NO_MODEL = cast(Model, None)  # the tokenizer of the judged model matters only to a judge with unknown words


def write_judge(folder: Path, length: int = 40) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, int]]:
    """Returns the config, tensors and vocabulary of a published judge in a folder."""
    config = config_json(vocab_size=257, n_positions=length)
    return config, write_checkpoint(folder, config), write_byte_tokenizer(folder)


def test_its_perplexity_is_that_of_its_own_tokens_after_the_end_of_text(tmp_path: Path) -> None:
    config, tensors, vocab = write_judge(tmp_path)
    judge, texts = load_judge(str(tmp_path), NO_MODEL, "run"), ["The Mill is cheap .", "é"]
    rows = [[vocab[letter] for letter in text] + [vocab["<|endoftext|>"]] for text in ("TheĠMillĠisĠcheapĠ.", "Ã©")]
    nats = [-log_likelihood(config, tensors, np.array([row]), row[-1])[0] for row in rows]
    rate, _ = judge_nll(judge, texts)
    assert rate == pytest.approx(sum(nats) / sum(map(len, rows)), rel=1e-5)
    names = ("samples", "valid", "train")
    scores = generative_perplexity(judge, dict.fromkeys(names, (rate, 0.0)), "valid", dict.fromkeys(names, 2))
    assert scores["perplexity_ratio"]["kind"] == f"under {tmp_path}, exact"


def test_a_text_longer_than_its_positions_is_named(tmp_path: Path) -> None:
    write_judge(tmp_path)
    judge = load_judge(str(tmp_path), NO_MODEL, "run")
    assert len(judge.nll(["x" * 39])) == 1
    with pytest.raises(UserError, match="A text of 41 tokens .* is longer than the 40"):
        judge.nll(["x" * 40])


def test_texts_are_checked_before_sampling_and_samples_that_are_too_long_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_judge(tmp_path)
    judge, texts = load_judge(str(tmp_path), NO_MODEL, "run"), ["x" * 39, "x" * 40, "x"]
    check_judge(judge, texts[:1])
    with pytest.raises(UserError, match=f"A real text has 41 tokens of the judge {tmp_path}, which reads 40 at most"):
        check_judge(judge, texts)
    assert judged_texts(judge, texts) == [texts[0], texts[2]]
    assert "1 of 3 texts are longer than the 40 tokens of the judge" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"1 of 2 texts .* of the judge .* Give another --judge"):
        judged_texts(judge, texts[:2])


def test_a_judge_without_a_tokenizer_is_given_it_as_a_file(tmp_path: Path) -> None:
    write_judge(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer.json.*: copy it to a folder with the checkpoint"):
        load_judge(str(tmp_path), NO_MODEL, "run")


def test_a_judge_without_an_exact_likelihood_is_refused(tmp_path: Path) -> None:
    published_bert.write_checkpoint(tmp_path, published_bert.config_json())
    with pytest.raises(UserError, match=r"is Masked, whose likelihood is: .*bound.* A judge must be exact\."):
        load_judge(str(tmp_path), NO_MODEL, "run")


def test_a_judge_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no trained run in"):
        load_judge(str(tmp_path), NO_MODEL, "run")
    with pytest.raises(UserError, match="cannot read hub:gpt2 "):
        load_judge("hub:gpt2", NO_MODEL, "run")
    published_gpt2.write_checkpoint(tmp_path, config_json())
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="has pytorch_model.bin but no safetensors file"):
        load_judge(str(tmp_path), NO_MODEL, "run")


@pytest.mark.slow
@pytest.mark.parametrize("config", ["masked.py", "diffusion_lm.py"])
def test_evaluate_takes_it_for_any_run(config: str, tmp_path: Path) -> None:
    write_texts(tmp_path)
    write_judge(tmp_path / "judge", length=100)
    flags = (f"--checkpoint={trained(config)}", "--judge=judge", "--num=20", "--steps=3", "--out=scores.json")
    done = run("evaluate", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    values = scores["metrics"]
    assert values["generative_perplexity"]["kind"] == "under judge, exact" and scores["judge"]
    judge = load_judge(str(tmp_path / "judge"), NO_MODEL, "run")
    assert values["judge_nll"]["real_train"] == pytest.approx(judge_nll(judge, TEXTS)[0], rel=0.05)
