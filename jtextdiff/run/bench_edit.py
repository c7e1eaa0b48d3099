"""The cost of editing by latents: rewrites over reading and writing alone, and over diffusion guided as released."""

from collections.abc import Callable
from typing import Any

from jtextdiff.methods.method import Latent
from jtextdiff.run.bench_guide import as_released
from jtextdiff.run.bench_guide import followed as guided_by
from jtextdiff.run.command import UserError
from jtextdiff.run.controls import Control
from jtextdiff.run.model import Model
from jtextdiff.run.steering import asked
from jtextdiff.run.timing import Seconds, machine, peak_memory, race
from jtextdiff.run.writing import compiled_once


def bench(
    model: Model, control: Control, texts: list[str], *, against: Model | None, wanted: Control | None, repeats: int
) -> dict[str, Any]:
    """Times the rewriting of all `texts`, in turns with the same of nothing asked, and the model's parts.

    `against`, if any, is a Diffusion-LM, whose default and released ways to follow `wanted` are timed for one text.
    Raises UserError for a model without latents, or a control without energy.
    """
    if not isinstance(model.method, Latent):
        raise UserError(f"{type(model.method).__name__} has no latents to move: give a run of TextVAE.")
    if asked(control, model.steered).energy is None:
        raise UserError(f"The control {control} has no energy, and costs nothing: give one that moves latents.")
    where, rewrite = machine(), compiled_once(model.method, "rewrite")
    calls: dict[str, Callable[[], Any]] = {
        "edit": lambda: model.edit(texts, control=control),
        "read_and_write": lambda: model.edit(texts),
        "edit_of_one": lambda: model.edit(texts[:1], control=control),
    }
    if against is not None and wanted is not None:
        guided_by(against, wanted)
        released = as_released(against)
        calls["guided"] = lambda: against.draw(1, control=wanted)
        calls["released"] = lambda: released.draw(1, control=wanted)
    for call in calls.values():
        call()
    before = rewrite._cache_size()
    model.edit(texts, control=control * 2.0)
    added = rewrite._cache_size() - before
    best, rate, over = race("edit", calls, {}, repeats)
    rows = {name: _row(best[name], len(texts) if name in ("edit", "read_and_write") else 1) for name in calls}
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


def _row(best: Seconds, size: int) -> dict[str, float]:
    return {"seconds_per_text": best.wall / size, "cpu_seconds_per_text": best.cpu / size}
