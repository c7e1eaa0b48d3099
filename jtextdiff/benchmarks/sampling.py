"""The cost of sampling: a whole sampler over that of another method, over its bare network, and over PyTorch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtextdiff.benchmarks.timing import TORCH, machine, peak_memory, race, timed, torch_here, torch_peer
from jtextdiff.cli.output import say
from jtextdiff.devices.flops import matmul_flops
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import Drawn, compiled_once
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.types import Sample, nothing_given
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.method import Method


def bench(model: Model, *, against: Model | None, num: int, repeats: int, peer: bool) -> dict[str, Any]:
    """Times `num` texts of a model in turns with what they can be held against.

    `against`: another trained model. Of Diffusion-LM the compiled sampler is timed, at the model's full length, beside
    `sampler.steps` forward passes on the same shapes and the same walk in PyTorch; of other methods `Model.draw`, all
    that one who wants texts waits for, beside GPT-2 of the same size by transformers.
    """
    where, method = machine(), model.method
    whole = isinstance(method, DiffusionLM)
    compiled, sample = (
        program(model, num) if whole else (compiled_once(method, "sample", mesh_of(model.params)), _draws(model, num))
    )
    calls: dict[str, Callable[[], Any]] = {"sample": sample}
    if against is not None:
        calls["against"] = _draws(against, num)
    if whole:
        calls["forward"] = forward(method, model.params, num)
    say("compiling …")
    compile_s, memory = timed(sample).wall, peak_memory()
    drawn = {name: call() for name, call in calls.items()}
    best, rate, over = race("sample", calls, _peers(model, drawn["sample"].tokens) if peer else {}, repeats)
    keys, given = keys_for(jax.random.key(0), jnp.arange(num)), nothing_given(num, method.language.length)
    ours = {
        "num": num,
        "length": method.language.length,
        "tokens": int((drawn["sample"].tokens != method.language.pad).sum()),
        "calls": int(drawn["sample"].calls.max()),
        "calls_against": int(drawn["against"].calls.max()) if against else None,
        "sampler": method.sampler.name,
        "compile_s": compile_s - best["sample"].wall,
        "compilations": compiled._cache_size(),
        "sample_s": best["sample"].wall,
        "sample_cpu_s": best["sample"].cpu,
        "machine_gflop_per_second": rate / 1e9,
    }
    if whole:
        flops = matmul_flops(method.sample, model.params, keys, given)
        ours |= {"matmul_gflop": flops / 1e9, "share_of_machine": flops / best["sample"].wall / rate}
    return where | ours | memory | over


def program(model: Model, num: int) -> tuple[Any, Callable[[], Sample]]:
    """The compiled sampler, and it as a call that draws `num` texts at full length."""
    compiled, length = jax.jit(model.method.sample), model.method.language.length
    keys, given = keys_for(jax.random.key(0), jnp.arange(num)), nothing_given(num, length)
    return compiled, lambda: compiled(model.params, keys, given)


def _draws(model: Model, num: int) -> Callable[[], Drawn]:
    """`num` texts, as `Model.sample` draws them."""
    return lambda: model.draw(num)


def forward(method: DiffusionLM, params: Any, num: int) -> Callable[[], Any]:
    """As many passes of the bare network as the sampler takes steps."""
    length = method.language.length
    valid = jnp.ones((num, length), bool)
    t = jnp.full((num, length if method.times == "own" else 1), 500.0)  # as the sampler hands it over
    x = jnp.ones((num, length, method.embed_dim))
    network = jax.jit(lambda params, x, t: method.net.bind(params)(x, t, x, valid=valid))

    def passes() -> Any:
        answer = x
        for _ in range(method.sampler.steps):
            answer = network(params, x, t)
        return answer

    return passes


def _peers(model: Model, drawn: Any) -> dict[str, Callable[..., Any]]:
    """What makes the peer's draws, if there is one."""
    method, num = model.method, len(drawn)
    if isinstance(method, DiffusionLM):
        peer = torch_peer(method)
        walks = lambda name: functools.partial(
            peer.sampler, model.params, method, num, compiled=name == "torch_compiled"
        )
        return {} if peer is None else {name: walks(name) for name in TORCH}
    return gpt2(method, drawn)


def gpt2(method: Method, drawn: Any) -> dict[str, Callable[..., Any]]:
    """What makes GPT-2's draws of as many and as long texts as were `drawn`, if it can run here."""
    trunk: Any = getattr(method, "trunk", None)
    if trunk is None or not torch_here():
        return {}
    from jtextdiff.benchmarks.torch_gpt2 import writer

    longest = int((drawn != method.language.pad).sum(axis=-1).max())
    return {"gpt2": functools.partial(writer, trunk, method.language.vocab_size, len(drawn), longest)}
