"""Cost of latent editing: against encoding and decoding alone, and against guided diffusion."""

import functools
from typing import Any

import jax
import numpy as np

from jtextdiff.benchmarks.guidance import followed_energy, with_released_guidance
from jtextdiff.benchmarks.timing import Call, Seconds, compare_timings, machine_info, peak_memory
from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control
from jtextdiff.control.resolve import resolve
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.inference.batched import jitted
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.latents import FlowLimits
from jtextdiff.methods.method import LatentVariableModel

NUM_ALONE = 16
"""Up to so many texts are edited alone: the time of an edit depends on its text."""


def benchmark_editing(
    model: Model,
    control: Control,
    texts: list[str],
    *,
    against: Model | None,
    against_control: Control | None,
    repeats: int,
) -> dict[str, Any]:
    """Times latent edits of all `texts`, the same without a control, and the latent flow alone, interleaved.

    The flow moves as many random latents for all its time, as LatentOps does; torchdiffeq's flow is timed too if it is
    installed. `against`, if given, is a Diffusion-LM, timed for one text with its default and the released guidance
    towards `against_control`. Raises UserError for a model without latents or a control without energy.
    """
    if not isinstance(model.method, LatentVariableModel):
        raise UserError(f"Latent editing needs a run of TextVAE, got {type(model.method).__name__}.")
    energy = resolve(control, model).energy
    if energy is None:
        raise UserError(f"The control {control} has no energy, so it costs nothing: give one that moves latents.")
    info, rewrite = machine_info(), jitted(model.method, "rewrite", mesh_of(model.params))
    calls = edit_calls(model, control, texts)
    if against is not None and against_control is not None:
        calls |= guided_calls(against, against_control)
    for call in calls.values():
        call()
    sampler = model.method.sampler
    start = np.random.default_rng(0).standard_normal((len(texts), model.method.latent_dim), np.float32)
    flow = jax.jit(functools.partial(sampler.flow, limits=FlowLimits(sampler.max_time)))
    calls["flow"] = lambda: jax.block_until_ready(flow(energy, start).z)
    peers = {"flow_by_torchdiffeq": lambda: torch_flow(energy, start, sampler.max_time)}
    before = rewrite._cache_size()
    model.edit_texts(texts, control=control * 2.0)
    compilations = rewrite._cache_size() - before
    best, rate, report = compare_timings("edit", calls, peers, repeats)
    sizes = {"edit_of_one": len(texts[:NUM_ALONE]), "guided": 1, "released": 1}
    rows = {name: _row(best[name], sizes.get(name, len(texts))) for name in [*calls, *peers] if name in best}
    return info | {
        "control": str(control),
        "texts": len(texts),
        "rows": rows,
        "edit_over_read_and_write": report["edit_over_read_and_write"],
        "edit_over_read_and_write_cpu": report["edit_over_read_and_write_cpu"],
        **_diffusion_over_edits(rows),
        "compilations_of_another_weight": compilations,
        "machine_gflop_per_second": rate / 1e9,
        "timings": report["timings"],
        **peak_memory(),
    }


def edit_calls(model: Model, control: Control, texts: list[str]) -> dict[str, Call]:
    """Returns the edit of all texts, their encoding and decoding without a control, and edits of one text at a time."""
    return {
        "edit": lambda: model.edit_texts(texts, control=control),
        "read_and_write": lambda: model.edit_texts(texts),
        "edit_of_one": lambda: [model.edit_texts([text], control=control) for text in texts[:NUM_ALONE]],
    }


def guided_calls(model: Model, control: Control) -> dict[str, Call]:
    """Returns the sampling of one text of a Diffusion-LM, with its own and with the released guidance."""
    followed_energy(model, control)
    released = with_released_guidance(model)
    return {"guided": lambda: model.draw(1, control=control), "released": lambda: released.draw(1, control=control)}


def torch_flow(energy: Any, start: Any, max_time: float) -> Call:
    """Returns the same flow by torchdiffeq. Raises ImportError if it is not installed."""
    from jtextdiff.benchmarks.torch_latent_flow import flow

    return flow(energy, start, max_time)


def _diffusion_over_edits(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """The cost of one guided text over that of an edited one."""
    cost = {name: row["seconds_per_text"] for name, row in rows.items()}
    diffusion = [name for name in ("guided", "released") if name in cost]
    return {f"{name}_over_{edit}": cost[name] / cost[edit] for name in diffusion for edit in ("edit", "edit_of_one")}


def _row(best: Seconds, size: int) -> dict[str, float]:
    return {"seconds_per_text": best.wall / size, "cpu_seconds_per_text": best.cpu / size}
