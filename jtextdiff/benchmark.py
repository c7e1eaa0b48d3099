"""python -m jtextdiff.benchmark: what sampling costs over the bare network, as a ratio within one run."""

import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from jtextdiff.run.command import Parser, UserError, add_checkpoint, main, sampler_overrides, say

EXAMPLES = """examples:
  python -m jtextdiff.benchmark --checkpoint runs/diffusion_lm --num 64 --steps 200

Times the whole compiled sampler against as many bare forward passes of its network on the same batch, in turns,
and prints the seconds, their ratio, the compilations and the load of the machine as JSON.
"""


def parser() -> Parser:
    it = Parser(prog="python -m jtextdiff.benchmark", description="Times sampling.", epilog=EXAMPLES)
    add_checkpoint(it)
    it.add_argument("--num", type=int, default=64, help="sentences in the batch (default: 64)")
    it.add_argument("--repeats", type=int, default=3, help="timings of each, taken in turns (default: 3)")
    return it


def command(arguments: Sequence[str]) -> None:
    flags = parser().parse_args(arguments)
    if flags.num < 1 or flags.repeats < 1:
        raise UserError(f"--num and --repeats must be at least 1, got {flags.num} and {flags.repeats}.")
    import jax

    from jtextdiff.methods.diffusion_lm import DiffusionLM
    from jtextdiff.run.model import load

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    if not isinstance(model.method, DiffusionLM):
        raise UserError(f"The benchmark times DiffusionLM; {flags.checkpoint} is {type(model.method).__name__}.")
    compiled, sample, forward = programs(model.method, model.params, flags.num)
    say("compiling …")
    compile_seconds = timed(lambda: sample(0))[0]
    timed(lambda: forward(1))
    steps, rows = model.method.sampler.steps, []
    for repeat in range(flags.repeats):
        seconds, cpu = timed(lambda seed=repeat: sample(seed + 1))
        bare, bare_cpu = timed(lambda: forward(steps))
        rows.append({"sample_s": seconds, "sample_cpu_s": cpu, "forward_s": bare, "forward_cpu_s": bare_cpu})
        say(f"sampling {seconds:.2f} s, {steps} forward passes {bare:.2f} s, ratio {seconds / bare:.3f}")
    result = {
        "num": flags.num,
        "length": model.method.language.length,
        "steps": steps,
        "sampler": model.method.sampler.name,
        "device": jax.devices()[0].device_kind,
        "load": os.getloadavg()[0],
        "compile_s": compile_seconds,
        "compilations": compiled._cache_size(),
        "timings": rows,
        "ratio_of_minima": min(row["sample_s"] for row in rows) / min(row["forward_s"] for row in rows),
        "ratio_of_cpu_minima": min(row["sample_cpu_s"] for row in rows) / min(row["forward_cpu_s"] for row in rows),
    }
    print(json.dumps(result, indent=2))


def programs(method: Any, params: Any, num: int) -> tuple[Any, Callable[[int], Any], Callable[[int], Any]]:
    """The compiled sampler, it as a function of a seed, and the bare network as a function of a number of passes."""
    import jax
    import jax.numpy as jnp

    from jtextdiff.core.randomness import keys_for
    from jtextdiff.methods.method import nothing_given

    length = method.language.length
    compiled = jax.jit(method.sample)
    valid = jnp.ones((num, length), bool)
    t = jnp.full((num, length if method.times == "own" else 1), 500.0)  # as the sampler hands it over
    x = jnp.ones((num, length, method.embed_dim))
    network = jax.jit(lambda params, x, t: method.net.bind(params)(x, t, x, valid=valid))

    def sample(seed: int) -> Any:
        keys = keys_for(jax.random.key(seed), jnp.arange(num))
        return compiled(params, keys, nothing_given(num, length)).tokens

    def forward(passes: int) -> Any:
        answer = x
        for _ in range(passes):
            answer = network(params, x, t)
        return answer

    return compiled, sample, forward


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock and of the process's CPU until the result is there."""
    import jax

    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main(command)
