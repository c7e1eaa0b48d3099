"""The cost of sampling: a whole sampler over that of another method, over its bare network, and over PyTorch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtextdiff.core.randomness import keys_for
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.method import Method, Sample, nothing_given
from jtextdiff.run.command import say
from jtextdiff.run.flops import matmul_flops
from jtextdiff.run.timing import TORCH, machine, peak_memory, race, timed, torch_here, torch_peer


def bench(
    method: Method, params: Any, *, against: tuple[Method, Any] | None, num: int, repeats: int, peer: bool
) -> dict[str, Any]:
    """Times one batch of `num` texts in turns with what it can be held against.

    `against`: another trained model's method and parameters. Of Diffusion-LM beside: `sampler.steps` forward passes on
    the same shapes, and the same walk in PyTorch; of other methods GPT-2 of the same size, by transformers.
    """
    where = machine()
    compiled, sample = sampler(method, params, num)
    calls: dict[str, Callable[[], Any]] = {"sample": sample}
    if against is not None:
        calls["against"] = sampler(*against, num)[1]
    if isinstance(method, DiffusionLM):
        calls["forward"] = forward(method, params, num)
    say("compiling …")
    compile_s, memory = timed(sample).wall, peak_memory()
    drawn = {name: call() for name, call in calls.items()}
    best, rate, over = race("sample", calls, _peers(method, params, drawn["sample"]) if peer else {}, repeats)
    keys, length = keys_for(jax.random.key(0), jnp.arange(num)), method.language.length
    flops = matmul_flops(method.sample, params, keys, nothing_given(num, length))
    ours = {
        "num": num,
        "length": length,
        "tokens": int(jnp.sum(drawn["sample"].tokens != method.language.pad)),
        "calls": int(jnp.max(drawn["sample"].calls)),
        "calls_against": int(jnp.max(drawn["against"].calls)) if against else None,
        "sampler": method.sampler.name,
        "compile_s": compile_s - best["sample"].wall,
        "compilations": compiled._cache_size(),
        "sample_s": best["sample"].wall,
        "sample_cpu_s": best["sample"].cpu,
        "matmul_gflop": flops / 1e9,
        "machine_gflop_per_second": rate / 1e9,
        "share_of_machine": flops / best["sample"].wall / rate,
    }
    return where | ours | memory | over


def sampler(method: Method, params: Any, num: int) -> tuple[Any, Callable[[], Sample]]:
    """The compiled sampler, and it as a call that draws `num` texts."""
    compiled = jax.jit(method.sample)
    keys, given = keys_for(jax.random.key(0), jnp.arange(num)), nothing_given(num, method.language.length)
    return compiled, lambda: compiled(params, keys, given)


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


def _peers(method: Method, params: Any, drawn: Sample) -> dict[str, Callable[..., Any]]:
    """What makes the peer's draws, if there is one."""
    num, longest = len(drawn.tokens), int(jnp.max(jnp.sum(drawn.tokens != method.language.pad, axis=-1)))
    if isinstance(method, DiffusionLM):
        peer = torch_peer(method)
        walks = lambda name: functools.partial(peer.sampler, params, method, num, compiled=name == "torch_compiled")
        return {} if peer is None else {name: walks(name) for name in TORCH}
    trunk: Any = getattr(method, "trunk", None)
    if trunk is None or not torch_here():
        return {}
    from jtextdiff.run.peer_gpt2 import writer

    return {"gpt2": functools.partial(writer, trunk, method.language.vocab_size, num, longest)}
