"""The cost of editing by latents: rewrites over reading and writing alone, and over diffusion guided as released."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jtextdiff.benchmarks.guidance import as_released
from jtextdiff.benchmarks.guidance import followed as guided_by
from jtextdiff.benchmarks.timing import Seconds, machine, peak_memory, race
from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control
from jtextdiff.control.resolve import asked
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.inference.batched import compiled_once
from jtextdiff.inference.model import Model
from jtextdiff.methods.method import Latent


def bench(
    model: Model, control: Control, texts: list[str], *, against: Model | None, wanted: Control | None, repeats: int
) -> dict[str, Any]:
    """Times the rewriting of all `texts`, in turns with the same of nothing asked, and the flow of as many latents
    drawn at random for all its time, which is LatentOps' own, beside torchdiffeq's if that is installed.

    `against`, if any, is a Diffusion-LM, whose default and released ways to follow `wanted` are timed for one text.
    Raises UserError for a model without latents, or a control without energy.
    """
    if not isinstance(model.method, Latent):
        raise UserError(f"{type(model.method).__name__} has no latents to move: give a run of TextVAE.")
    energy = asked(control, model.steered).energy
    if energy is None:
        raise UserError(f"The control {control} has no energy, and costs nothing: give one that moves latents.")
    where, rewrite = machine(), compiled_once(model.method, "rewrite", mesh_of(model.params))
    calls = rewriting(model, control, texts) | ({} if against is None or wanted is None else guided(against, wanted))
    for call in calls.values():
        call()
    start = np.random.default_rng(0).standard_normal((len(texts), model.method.latent_dim), np.float32)
    descend = jax.jit(functools.partial(model.method.sampler.moved, tau=model.method.sampler.tau))
    calls["flow"] = lambda: jax.block_until_ready(descend(energy, start).z)
    makers = {"flow_by_torchdiffeq": lambda: followed_by_torch(energy, start, model.method.sampler.tau)}
    before = rewrite._cache_size()
    model.edit(texts, control=control * 2.0)
    added = rewrite._cache_size() - before
    best, rate, over = race("edit", calls, makers, repeats)
    alone = ("edit_of_one", "guided", "released")
    rows = {name: _row(best[name], 1 if name in alone else len(texts)) for name in [*calls, *makers] if name in best}
    cost = {name: row["seconds_per_text"] for name, row in rows.items()}
    slow = [name for name in ("guided", "released") if name in cost]
    ratios = {f"{name}_over_{mine}": cost[name] / cost[mine] for name in slow for mine in ("edit", "edit_of_one")}
    return where | {
        "control": str(control),
        "texts": len(texts),
        "rows": rows,
        "edit_over_read_and_write": over["edit_over_read_and_write"],
        "edit_over_read_and_write_cpu": over["edit_over_read_and_write_cpu"],
        **ratios,
        "compilations_of_another_weight": added,
        "machine_gflop_per_second": rate / 1e9,
        "timings": over["timings"],
        **peak_memory(),
    }


def rewriting(model: Model, control: Control, texts: list[str]) -> dict[str, Callable[[], Any]]:
    """Rewrites of all texts, the same of nothing asked, and a rewrite of one."""
    return {
        "edit": lambda: model.edit(texts, control=control),
        "read_and_write": lambda: model.edit(texts),
        "edit_of_one": lambda: model.edit(texts[:1], control=control),
    }


def guided(against: Model, wanted: Control) -> dict[str, Callable[[], Any]]:
    """One text guided by diffusion, as it is by default and as it was released."""
    guided_by(against, wanted)
    released = as_released(against)
    return {"guided": lambda: against.draw(1, control=wanted), "released": lambda: released.draw(1, control=wanted)}


def followed_by_torch(energy: Any, start: Any, tau: float) -> Callable[[], Any]:
    """The same flow by torchdiffeq, where it is installed."""
    from jtextdiff.benchmarks.torch_latent_flow import flow

    return flow(energy, start, tau)


def _row(best: Seconds, size: int) -> dict[str, float]:
    return {"seconds_per_text": best.wall / size, "cpu_seconds_per_text": best.cpu / size}
