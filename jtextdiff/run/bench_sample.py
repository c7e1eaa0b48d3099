"""The cost of sampling: the whole compiled sampler over as many bare passes of its network, and PyTorch's."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtextdiff.core.randomness import keys_for
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.method import nothing_given
from jtextdiff.run.command import say
from jtextdiff.run.flops import matmul_flops
from jtextdiff.run.timing import TORCH, machine, peak_memory, race, timed, torch_peer


def bench(method: DiffusionLM, params: Any, *, num: int, repeats: int, peer: bool) -> dict[str, Any]:
    """Times one batch of `num` texts against `sampler.steps` forward passes on the same shapes, in turns."""
    where = machine()
    compiled, sample, forward = programs(method, params, num)
    steps, length = method.sampler.steps, method.language.length
    say("compiling …")
    compile_s, memory = timed(sample).wall, peak_memory()
    timed(lambda: forward(1))
    calls = {"sample": sample, "forward": lambda: forward(steps)}
    best, rate, over = race("sample", calls, _peers(method, params, num) if peer else {}, repeats)
    keys = keys_for(jax.random.key(0), jnp.arange(num))
    flops = matmul_flops(method.sample, params, keys, nothing_given(num, length))
    ours = {
        "num": num,
        "length": length,
        "steps": steps,
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


def programs(method: DiffusionLM, params: Any, num: int) -> tuple[Any, Callable[[], Any], Callable[[int], Any]]:
    """The compiled sampler, it as a call, and the bare network as a function of a number of passes."""
    length = method.language.length
    compiled = jax.jit(method.sample)
    valid = jnp.ones((num, length), bool)
    t = jnp.full((num, length if method.times == "own" else 1), 500.0)  # as the sampler hands it over
    x = jnp.ones((num, length, method.embed_dim))
    network = jax.jit(lambda params, x, t: method.net.bind(params)(x, t, x, valid=valid))

    def sample() -> Any:
        keys = keys_for(jax.random.key(0), jnp.arange(num))
        return compiled(params, keys, nothing_given(num, length)).tokens

    def forward(passes: int) -> Any:
        answer = x
        for _ in range(passes):
            answer = network(params, x, t)
        return answer

    return compiled, sample, forward


def _peers(method: DiffusionLM, params: Any, num: int) -> dict[str, Callable[..., Any]]:
    """What makes the peer's walks, if there is one."""
    peer = torch_peer(method)
    if peer is None:
        return {}
    return {
        name: functools.partial(peer.sampler, params, method, num, compiled=name == "torch_compiled") for name in TORCH
    }
