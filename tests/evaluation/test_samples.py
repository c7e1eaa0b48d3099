"""Reports name the computing type and the changed settings, and their tables fit 80 columns."""

import dataclasses

import pytest

from jtextdiff.evaluation.editing.scores import edit_table
from jtextdiff.evaluation.editing.tasks import EditTask
from jtextdiff.evaluation.samples import changed_settings, compute_dtype, sample_table
from jtextdiff.evaluation.score import mean_score, reference, score
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.masked_samplers import Unmasking

TRUNK = Transformer(num_layers=1, width=16, num_heads=2)
SPEC = TextSpec(vocab_size=12, mask=12, pad=0, eos=1, unk=2, length=8, length_counts=(0,) * 8 + (1,))


@pytest.mark.parametrize(("bfloat16", "dtype"), [(False, "float32"), (True, "bfloat16")])
def test_the_computing_type_is_that_of_the_network(bfloat16: bool, dtype: str) -> None:
    assert compute_dtype(Masked(text_spec=SPEC, trunk=dataclasses.replace(TRUNK, bfloat16=bfloat16))) == dtype


def test_settings_are_those_that_differ_from_the_default() -> None:
    assert changed_settings(Unmasking(steps=8)) == {}
    assert changed_settings(Unmasking(steps=8, top_p=0.9)) == {"top_p": 0.9}


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_of_samples_shows_all_scores_of_real_text(width: int) -> None:
    metrics = {
        "control_success[customer_rating=average]": mean_score([0.0, 1.0], "share", "words") | reference(0.25, 0.125),
        "word_perplexity": score(17.125, "per word, end counted", 0.5, 2, "a bound, " * 20) | reference(16.5, 15.5),
    }
    about = {"method": "DiffusionLM", "step": 40, "num_samples": 2, "nfe": 6.0, "sampler": "dpm_solver", "seed": 0}
    lines = sample_table({**about, "split": "test", "metrics": metrics}, width)
    assert max(map(len, lines)) <= width
    shown_words = " ".join(lines).split()
    for value in ("0.5", "0.25", "0.125", "17.12", "16.5", "15.5", "test", "control_success[customer_rating=average]"):
        assert value in shown_words


def test_the_table_of_edits_has_a_column_per_kind_of_text() -> None:
    rows = {
        name: {
            "success": mean_score([0.0, 1.0], "share", "n-grams"),
            "copies": mean_score([1.0, 1.0], "share", "exact"),
        }
        for name in ("copy", "reconstruction", "edit")
    }
    rows["edit"]["left"] = mean_score([1.0, 0.0], "share", "skipped")
    task = EditTask(labels=("food",), texts=["a", "b"], targets=[("x",), ("y",)])
    lines = edit_table(task, rows, 80)
    assert max(map(len, lines)) <= 80
    header = next(place for place, line in enumerate(lines) if line.startswith("score"))
    assert lines[header].split() == ["score", "copy", "reconstruction", "edit", "unit"]
    assert lines[header + 1].split() == ["success", *("0.5 ± 0.5 " * 3).split(), "share", "[1]"]
    assert lines[header + 3].split() == ["left", "0.5", "±", "0.5", "share", "[3]"]
