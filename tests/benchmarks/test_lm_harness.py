"""Likelihoods of continuations are distributions over them, and texts go on from their contexts."""

import itertools
import json
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but
from support.command_line import run
from support.runs import trained

import jtextdiff as jtd
from jtextdiff.benchmarks.lm_harness import _batch, check_method, continuation_nll, continue_texts
from jtextdiff.cli.errors import UserError
from jtextdiff.data.batches import Batch
from jtextdiff.inference.model import Model
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.transformer import Transformer

SPEC = TextSpec(vocab_size=6, mask=6, pad=0, eos=1, length=5, length_counts=(0, 0, 1, 1, 1, 1))
TRUNK = Transformer(num_layers=1, width=16, num_heads=2, max_length=5)
MASKED = Masked(text_spec=SPEC, trunk=TRUNK, bound_points=2)
CAUSAL = Autoregressive(
    text_spec=SPEC, trunk=Transformer(num_layers=1, width=16, num_heads=2, max_length=5, causal=True)
)
CONTEXT = "The Mill is"


def params_of(method: Masked | Autoregressive) -> dict:
    return jax.jit(lambda key: jax.tree.map(lambda leaf: 3.0 * leaf, method.init(key)))(jax.random.key(0))


def batch(rows: list[list[int]]) -> Batch:
    tokens = np.asarray(rows, np.int32)
    return Batch(tokens, np.ones(tokens.shape, bool), np.zeros(tokens.shape, bool), {})


@pytest.mark.slow
@pytest.mark.parametrize("method", [CAUSAL, MASKED])
def test_the_tokens_of_one_place_are_a_distribution(method: Masked | Autoregressive) -> None:
    rows = batch([[2, 3, word, 4, 1] for word in range(SPEC.vocab_size)])
    scored = jnp.tile(jnp.arange(5) == 2, (SPEC.vocab_size, 1))
    nats = jax.jit(method.continuation_nll)(params_of(method), jax.random.key(0), rows, scored)
    assert float(jnp.sum(jnp.exp(-nats))) == pytest.approx(1.0, abs=1e-5)


def test_a_causal_likelihood_obeys_the_chain_rule() -> None:
    rows, params = batch([[2, 3, 5, 4, 1], [4, 4, 2, 3, 1]]), params_of(CAUSAL)
    continuation_nll = jax.jit(CAUSAL.continuation_nll)

    def nats(first: int, last: int) -> np.ndarray:
        scored = np.tile((np.arange(5) >= first) & (np.arange(5) < last), (2, 1))
        return np.asarray(continuation_nll(params, jax.random.key(0), rows, scored))

    np.testing.assert_allclose(nats(1, 3) + nats(3, 5), nats(1, 5), rtol=1e-5)
    np.testing.assert_allclose(nats(0, 5), jax.jit(CAUSAL.nll)(params, jax.random.key(0), rows), rtol=1e-5)


def test_the_bound_of_two_tokens_is_the_mean_over_both_orders() -> None:
    """And it is above −log of the mean probability over the orders, in which they may be drawn."""
    params, row, places = params_of(MASKED), [2, 3, 5, 4, 1], (1, 3)
    losses = jax.jit(MASKED._denoiser(params).losses(jnp.asarray([row]), jnp.ones((1, 5), bool)))

    def nats(place: int, masked: tuple[int, ...]) -> float:
        return float(np.asarray(losses(np.asarray([[i in masked for i in range(5)]])))[0, place])

    orders = [nats(first, places) + nats(second, (second,)) for first, second in itertools.permutations(places)]
    scored = np.tile(np.isin(np.arange(5), places), (500, 1))
    bound = np.asarray(jax.jit(MASKED.continuation_nll)(params, jax.random.key(1), batch([row] * 500), scored))
    assert np.mean(bound) == pytest.approx(np.mean(orders), abs=5 * float(np.std(bound)) / 500**0.5 + 1e-4)
    assert np.mean(orders) >= -np.log(np.mean(np.exp(-np.asarray(orders))))


@pytest.fixture(scope="module", params=slow_but(["autoregressive.py"], ["autoregressive.py", "masked.py"]))
def model(request: pytest.FixtureRequest) -> Model:
    return jtd.load(trained(request.param))


def test_a_continuation_is_what_the_text_has_more_than_its_context(model: Model) -> None:
    pairs = [(CONTEXT, " cheap ."), ("The Mill", " is cheap ."), ("", "The Mill is cheap .")]
    nats, errors = continuation_nll(model, pairs)
    assert nats[0] < nats[1] < nats[2] and all(np.isfinite(nats))
    assert (max(errors) == 0.0) == (model.method.bound == "exact")
    if model.method.bound == "exact":
        first, _ = continuation_nll(model, [("", CONTEXT)])
        assert first[0] + nats[0] == pytest.approx(nats[2], abs=1e-4)
    cheap, odd = continuation_nll(model, [(CONTEXT, " cheap ."), (CONTEXT, " Swan Mill")])[0]
    assert cheap < odd


def test_the_tokens_that_are_scored_are_the_continuation(model: Model) -> None:
    batch, scored = _batch(model, [(CONTEXT, " cheap ."), ("", "The Mill")])
    parts = [model.tokenizer.decode(row[marked]) for row, marked in zip(batch.tokens, scored, strict=True)]
    assert parts == ["cheap .", "The Mill"] and not np.any(scored & (batch.tokens == model.method.text_spec.eos))


def test_texts_go_on_from_their_contexts(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    going_on = continue_texts(model, [CONTEXT, CONTEXT, "The"], [[], [".", "cheap"], []])
    assert going_on[0] and not going_on[0].startswith("The Mill is")
    assert "." not in going_on[1] and "cheap" not in going_on[1]
    too_long = " ".join(["The Mill is cheap ."] * 30)
    nats, _ = continuation_nll(model, [(too_long, " The")])
    assert np.isfinite(nats[0]) and "their beginning is left out" in capsys.readouterr().err
    assert len(continue_texts(model, [too_long], [[]])) == 1


def test_methods_without_such_a_likelihood_are_named() -> None:
    with pytest.raises(UserError, match="D3PM has no likelihood of a continuation"):
        check_method(type("D3PM", (), {})())


def test_without_the_package_its_installation_is_named(tmp_path: Path) -> None:
    if find_spec("lm_eval"):
        pytest.skip("lm-eval is installed")
    done = run("harness", "--checkpoint=run", "--tasks=toy", cwd=tmp_path)
    assert done.returncode == 2 and "pip install -e '.[harness]'" in done.stderr


TASK = """task: toy
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list: [{{metric: acc}}]
"""


def test_the_harness_scores_a_task_of_a_file(model: Model, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    rows = [{"context": CONTEXT, "choices": ["Swan Mill", "cheap ."], "label": 1}] * 4
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "toy.yaml").write_text(TASK.format(folder=tmp_path))
    flags = (f"--checkpoint={model.run}", f"--include_path={tmp_path}", "--out=scores.json")
    done = run("harness", *flags, "--tasks=toy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "scores.json").read_text())["results"]["toy"]["acc,none"] == 1.0
    unknown = run("harness", *flags, "--tasks=absent", cwd=tmp_path)
    assert unknown.returncode == 2 and "no task absent" in unknown.stderr
