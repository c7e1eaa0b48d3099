"""Cost of sampling: over another model, over the network alone, and over PyTorch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtextdiff.benchmarks.timing import (
    TORCH,
    Call,
    compare_timings,
    machine_info,
    peak_memory,
    time_call,
    torch_available,
    torch_peer,
)
from jtextdiff.cli.output import say
from jtextdiff.devices.flops import matmul_flops
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import jitted
from jtextdiff.inference.model import Model
from jtextdiff.inference.sample_batches import SampleOutput
from jtextdiff.methods.components.types import Sample, nothing_given
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.method import Method


def benchmark_sampling(model: Model, *, against: Model | None, num: int, repeats: int, peer: bool) -> dict[str, Any]:
    """Times `num` texts of a model, interleaved with `against`, another trained model, and with peers.

    For Diffusion-LM, times the compiled sampler at the model's full length, with `sampler.steps` forward passes of the
    same shapes and the same sampler in PyTorch for comparison. For other methods, times `Model.draw`, all that a user
    waits for, with GPT-2 of the same size by transformers for comparison.
    """
    info, method = machine_info(), model.method
    sampler_only = isinstance(method, DiffusionLM)
    if sampler_only:
        compiled, sample = compiled_sampler(model, num)
    else:
        compiled, sample = jitted(method, "sample", mesh_of(model.params)), _draw_call(model, num)
    calls: dict[str, Call] = {"sample": sample}
    if against is not None:
        calls["against"] = _draw_call(against, num)
    if sampler_only:
        calls["forward"] = forward_passes(method, model.params, num)
    say("compiling …")
    compile_s, memory = time_call(sample).wall, peak_memory()
    outputs = {name: call() for name, call in calls.items()}
    peers = _peers(model, outputs["sample"].tokens) if peer else {}
    best, rate, report = compare_timings("sample", calls, peers, repeats)
    figures = {
        "num": num,
        "length": method.text_spec.length,
        "tokens": int((outputs["sample"].tokens != method.text_spec.pad).sum()),
        "calls": int(outputs["sample"].calls.max()),
        "calls_against": int(outputs["against"].calls.max()) if against else None,
        "sampler": method.sampler.name,
        "compile_s": compile_s - best["sample"].wall,
        "compilations": compiled._cache_size(),
        "sample_s": best["sample"].wall,
        "sample_cpu_s": best["sample"].cpu,
        "machine_gflop_per_second": rate / 1e9,
    }
    if sampler_only:
        keys, given = keys_for(jax.random.key(0), jnp.arange(num)), nothing_given(num, method.text_spec.length)
        flops = matmul_flops(method.sample, model.params, keys, given)
        figures |= {"matmul_gflop": flops / 1e9, "share_of_machine": flops / best["sample"].wall / rate}
    return info | figures | memory | report


def compiled_sampler(model: Model, num: int) -> tuple[Any, Callable[[], Sample]]:
    """Returns the compiled sampler, and a call of it that samples `num` texts at full length."""
    compiled, length = jax.jit(model.method.sample), model.method.text_spec.length
    keys, given = keys_for(jax.random.key(0), jnp.arange(num)), nothing_given(num, length)
    return compiled, lambda: compiled(model.params, keys, given)


def _draw_call(model: Model, num: int) -> Callable[[], SampleOutput]:
    """Returns a call that samples `num` texts as `Model.sample` does."""
    return lambda: model.draw(num)


def forward_passes(method: DiffusionLM, params: Any, num: int) -> Call:
    """Returns a call of as many passes of the network as the sampler takes steps."""
    length = method.text_spec.length
    valid = jnp.ones((num, length), bool)
    t = jnp.full((num, length if method.per_token_times else 1), 500.0)  # the shape that the sampler passes
    x = jnp.ones((num, length, method.embed_dim))
    network = jax.jit(lambda params, x, t: method.net.bind(params)(x, t, x, valid=valid))

    def passes() -> Any:
        output = x
        for _ in range(method.sampler.steps):
            output = network(params, x, t)
        return output

    return passes


def _peers(model: Model, tokens: Any) -> dict[str, Callable[[], Call]]:
    """Returns builders of the peers' calls for as many texts as `tokens` has; {} if there is no peer."""
    method, num = model.method, len(tokens)
    if not isinstance(method, DiffusionLM):
        return gpt2(method, tokens)
    peer = torch_peer(method)
    if peer is None:
        return {}
    return {
        name: functools.partial(peer.sampler, model.params, method, num, compiled=name == "torch_compiled")
        for name in TORCH
    }


def gpt2(method: Method, tokens: Any) -> dict[str, Callable[[], Call]]:
    """Returns a builder of a GPT-2 call for texts as many and as long as `tokens`; {} if GPT-2 cannot run here."""
    trunk: Any = getattr(method, "trunk", None)
    if trunk is None or not torch_available():
        return {}
    from jtextdiff.benchmarks.torch_gpt2 import generator

    longest = int((tokens != method.text_spec.pad).sum(axis=-1).max())
    return {"gpt2": functools.partial(generator, trunk, method.text_spec.vocab_size, len(tokens), longest)}
