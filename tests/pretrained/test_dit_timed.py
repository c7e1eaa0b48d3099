"""Networks that are conditioned on the time: the published outputs, read at the time that the noise implies."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.published import denoised, write_checkpoint, write_tokenizer
from support.published_timed import CONFIGS, WORDS_OF_GIDD, forward, random_tensors

from jtextdiff.cli.errors import UserError
from jtextdiff.methods.components.types import Given, TextSpec
from jtextdiff.nets.denoisers import Head
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.exported_layouts import layout_of
from jtextdiff.pretrained.families import FAMILIES, model_type_of, open_source
from jtextdiff.pretrained.network import Network
from jtextdiff.pretrained.standalone import read_model
from jtextdiff.pretrained.start import described
from jtextdiff.pretrained.vocabulary import take_rows

TEXT_SPEC = TextSpec(vocab_size=20, mask=20, pad=0, eos=1, unk=2, length=9, length_counts=(0,) * 9 + (1,))
OF_GIDD = dataclasses.replace(TEXT_SPEC, vocab_size=21)
TOKENS = np.array([[4, 19, 13, 0, 3, 19, 7, 3, 17], [3, 1, 6, 16, 19, 18, 16, 16, 8]])
WITH_MASK = np.array([[4, 19, 20, 0, 3, 20, 7, 3, 17], [20, 1, 20, 16, 19, 18, 20, 16, 8]])
SLOW = pytest.mark.slow  # another case of what a fast one covers
TIMES = np.array([0.3, 1.7])


def network_of(kind: str, **changes: Any) -> Network:
    config = {"model_type": kind, **CONFIGS[kind], **changes}
    return FAMILIES[config["model_type"]](config, "toy")


def method_of(network: Network, text_spec: TextSpec, **more: Any) -> Any:
    fields = network.settings | more
    trunk = Transformer(**fields.pop("trunk"))
    head = {"head": Head(**fields.pop("head"))} if "head" in fields else {}
    return network.method(text_spec=text_spec, trunk=trunk, **head, **fields)


def model_of(kind: str, **more: Any) -> tuple[Any, Any]:
    """Returns a method and the parameters of a toy with random weights."""
    network, text_spec = network_of(kind), OF_GIDD if kind == "dit" else TEXT_SPEC
    tensors = random_tensors(kind)
    params = network.fold(
        lambda name: take_rows(name, tensors[network.prefix + name], text_spec), lambda _, array: array
    )
    return method_of(network, text_spec, **more), params


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=SLOW if kind == "udlm" else ()) for kind in CONFIGS])
def test_the_network_has_the_published_outputs(kind: str) -> None:
    method, params = model_of(kind)
    tokens = TOKENS if network_of(kind).method.__name__ == "D3PM" else WITH_MASK
    net = jax.jit(lambda params, *inputs: method.net.bind(params)(*inputs))
    found = np.asarray(net(params, tokens, TIMES.astype(np.float32)))
    expected = forward(random_tensors(kind), tokens, TIMES)[..., : found.shape[-1]]
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_parameters_are_those_of_the_method(kind: str) -> None:
    method, params = model_of(kind)
    expected = jax.eval_shape(method.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    has_unused_input = kind not in ("sedd", "timed mdlm")  # whose MASK is the row after the tokens
    assert has_unused_input == (not np.any(params["embed"]["embedding"][-1]))


@pytest.mark.parametrize(("kind", "time"), [("sedd", lambda share: -np.log(1 - share)), ("dit", lambda share: share)])
def test_masked_diffusion_reads_the_time_at_which_this_share_is_masked(kind: str, time: Any) -> None:
    """The likelihood of each text is that of the published network at its own time; PAD is not counted."""
    method, params = model_of(kind)
    lengths = np.array([9, 7])
    valid = np.arange(9) < lengths[:, None]
    masked = valid & (np.arange(9) % 3 == 1)
    x_t, times = np.where(masked, 20, TOKENS), time(masked.sum(-1) / lengths)
    losses = jax.jit(lambda params, masked, *batch: method._denoiser(params).losses(*batch)(masked))
    nats = np.asarray(losses(params, masked, TOKENS, valid))
    for row, length in enumerate(lengths):
        tokens, inside = x_t[row : row + 1, :length], masked[row, :length]
        raw = forward(random_tensors(kind), tokens, times[row : row + 1])[..., : method.text_spec.vocab_size]
        log_p = denoised(raw, tokens, 20)[0, np.arange(length), TOKENS[row, :length]]
        np.testing.assert_allclose(-nats[row, :length][inside], log_p[inside], atol=2e-5)


def test_a_text_of_nothing_but_mask_has_the_last_sigma_of_the_log_linear_schedule() -> None:
    """The sampler reads it as the likelihood does."""
    method, params = model_of("sedd")
    tokens, given = np.full((1, 9), 20), Given(jnp.zeros((1, 9), int), jnp.zeros((1, 9), bool), jnp.asarray([9]))
    found = np.asarray(jax.jit(method.token_distribution)(params, given))[0]
    raw = forward(random_tensors("sedd"), tokens, np.array([math.log(1000)]))[0, 0, :20]
    allowed = np.isfinite(found)
    np.testing.assert_allclose(found[allowed], log_softmax(raw[allowed]), atol=2e-5)


@pytest.mark.parametrize("schedule", ["reciprocal", pytest.param("log_linear", marks=SLOW)])
def test_uniform_diffusion_reads_the_sigma_of_the_step(schedule: str) -> None:
    """It is −log ᾱ, and finite at t = 1; the sampler and the loss read the same."""
    method, params = model_of("DUO", schedule=schedule)
    index, valid = np.array([400, 1000]), np.ones((2, 9), bool)
    alpha_bar = np.exp(np.asarray(method.process.log_alpha_bar(index / 1000), np.float64))
    sigma = -np.log(np.maximum(alpha_bar, 1e-3))

    def outputs(params: Any, tokens: jax.Array, valid: jax.Array, index: jax.Array) -> tuple[Any, Any, Any]:
        key, denoiser = jax.random.key(0), method._denoiser(params)
        _, nll = denoiser.terms(key, tokens, valid, index)
        given = Given(tokens, jnp.zeros_like(valid), jnp.asarray([9, 9]))
        _, predict = method._start(denoiser, given, given.length)
        return denoiser.process.noised(key, tokens, index / 1000), nll, predict(tokens, index[0] / 1000, None)[0]

    x_t, nll, log_p = map(np.asarray, jax.jit(outputs)(params, TOKENS, valid, index))
    expected = log_softmax(forward(random_tensors("DUO"), x_t, sigma))
    np.testing.assert_allclose(-nll, np.take_along_axis(expected, TOKENS[..., None], -1)[..., 0], atol=2e-5)
    raw = forward(random_tensors("DUO"), TOKENS, sigma[[0, 0]])
    allowed = np.isfinite(log_p)
    expected = log_softmax(np.where(allowed, raw, -np.inf))
    np.testing.assert_allclose(log_p[allowed], expected[allowed], atol=2e-5)


def log_softmax(raw: np.ndarray) -> np.ndarray:
    raw = raw - raw.max(-1, keepdims=True)
    return raw - np.log(np.exp(raw).sum(-1, keepdims=True))


@pytest.mark.parametrize("kind", ["DUO", pytest.param("udlm", marks=SLOW)])
def test_uniform_diffusion_has_the_posterior_of_its_authors(kind: str) -> None:
    """It puts x̂_0 in the place of x_0, which is D3PM's "joint" form."""
    method = method_of(network_of(kind), TEXT_SPEC)
    p = np.random.default_rng(0).dirichlet(np.ones(20))
    alpha_s, alpha_t = (float(jnp.exp(method.process.log_alpha_bar(time))) for time in (0.3, 0.6))
    reverse = jax.jit(lambda log_p, x_t: jax.nn.softmax(method._denoiser({}).reverse(log_p, x_t, 0.3, 0.6).logits))
    found = reverse(np.log(p)[None, None].astype(np.float32), np.array([[7]]))[0, 0]
    ratio, one = alpha_t / alpha_s, np.eye(20)[7]
    expected = (ratio * one + (1 - ratio) / 20) * (alpha_s * p + (1 - alpha_s) / 20)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-6)


PUBLISHED = {
    "sedd": (
        {
            "tokens": 50_257,
            "model": {"hidden_size": 768, "cond_dim": 128, "n_blocks": 12, "n_heads": 12, "length": 1024},
        },
        169_627_218,
    ),
    "DUO": ({"vocab_size": 50_258, "model_length": 1024}, 169_627_218),
    "udlm": ({"vocab_size": 30_522, "model_length": 128}, 139_292_986),
}
SMALL = {"hidden_dim": 768, "cond_dim": 128, "n_blocks": 12, "n_heads": 12}


@pytest.mark.parametrize("kind", ["sedd", "udlm", pytest.param("DUO", marks=SLOW)])
def test_the_published_size_has_the_published_number_of_parameters(kind: str) -> None:
    """All of them are ours too, but for the output of MASK and the input of a MASK that is not there."""
    config, count = PUBLISHED[kind]
    network = network_of(kind, **(config if kind == "sedd" else {**SMALL, **config}))
    assert sum(map(math.prod, network.tensors.values())) == count
    size = config.get("vocab_size", 50_257)
    ours = jax.eval_shape(method_of(network, TextSpec(vocab_size=size, mask=size, length=8)).init, jax.random.key(0))
    difference = -(768 + 1) if kind == "sedd" else 768
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(ours)) == count + difference


REFUSED = {
    "mixed noise": ("dit", {"p_uniform": 0.1}, "p_uniform = 0.1; only 0.0 can be read"),
    "uniform SEDD": ("sedd", {"graph": {"type": "uniform"}}, "graph.type = 'uniform'; only 'absorb'"),
    "geometric noise": ("sedd", {"noise": {"type": "geometric"}}, "noise.type = 'geometric'; only 'loglinear'"),
    "no size": ("sedd", {"model": {"n_heads": 2}}, "needs model.hidden_size"),
    "no time": ("DUO", {"time_conditioning": False}, "time_conditioning = False; only True"),
    "labels of MDLM": ("timed mdlm", {"cfg": True, "cfg_num_classes": 3}, "cfg = True; only False"),
    "no labels": ("labelled udlm", {"cfg_num_classes": None}, "needs cfg_num_classes"),
}


@pytest.mark.parametrize(("kind", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_another_diffusion_is_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        network_of(kind, **changes)


def test_sedd_is_known_by_the_type_of_its_graph() -> None:
    graph = {"graph": {"type": "absorb"}}
    assert model_type_of(graph) == model_type_of({**graph, "model_type": None}) == "sedd"
    assert model_type_of({"graph": "absorb"}) is model_type_of({"graph": {}}) is None


@pytest.mark.parametrize("kind", ["sedd", "DUO", "dit"])
def test_a_folder_is_read_as_a_model(kind: str, tmp_path: Path) -> None:
    """SEDD has no model_type; Duo and UDLM no row for MASK; GIDD a MASK among its tokens, padding and buffers."""
    tensors = random_tensors(kind)
    if kind == "dit":
        angles = np.ones((1, 12, 3, 1, 8), np.float32)
        tensors |= {f"rotary_emb.{name}_cached": angles for name in ("cos", "sin")}
        tensors["logit_bias"] = np.zeros((1, 1, 1), np.float32)
    write_checkpoint(tmp_path, CONFIGS[kind], tensors)
    if kind == "dit":
        write_tokenizer(tmp_path, WORDS_OF_GIDD, mask_token="[MASK]")
    checkpoint = open_source(tmp_path)
    params = read_model(tmp_path)["params"]
    jax.tree.map(np.testing.assert_array_equal, params, model_of(kind)[1])
    padding = ", 3 rows of padding left out" if kind == "dit" else ""
    text_spec = OF_GIDD if kind == "dit" else TEXT_SPEC
    assert described(checkpoint, text_spec).endswith(f" parameters{padding}")


def test_gidd_needs_a_tokenizer_that_names_mask(tmp_path: Path) -> None:
    """Its embedding has rows of padding after MASK, so that the last row is not that of MASK."""
    write_checkpoint(tmp_path, CONFIGS["dit"], random_tensors("dit"))
    with pytest.raises(UserError, match="MASK, which must be a token of the tokenizer"):
        read_model(tmp_path)


@pytest.mark.parametrize(("kind", "message"), [("sedd", "time_input is 'sigma'"), ("DUO", "The method is D3PM")])
def test_they_are_not_exported(kind: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        method = method_of(network_of(kind), TEXT_SPEC)
        layout_of(method).config_of(method)
