"""The cost of guidance: guided texts over unguided ones, over the released way, over autoregression; and its gain."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.benchmarks.sampling import forward, gpt2
from jtextdiff.benchmarks.timing import Seconds, machine, peak_memory, race, ratios
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.control.controls import RULES, Control, length
from jtextdiff.control.resolve import asked
from jtextdiff.control.trained import trained
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.constituents import SYNTAX
from jtextdiff.devices.flops import matmul_flops
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.evaluation.control_success import Rules
from jtextdiff.evaluation.likelihood import generative, judged
from jtextdiff.evaluation.score import Score, evenly, mean
from jtextdiff.inference.batched import Drawn, compiled_once
from jtextdiff.inference.model import Model
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.components.types import nothing_given
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.sampling.energies import Energy
from jtextdiff.sampling.guidance import RELEASED
from jtextdiff.sampling.loop import ticks

OTHERS = 2
"""Values of a label, beside the one asked for, that are drawn to see that they need no other program."""

ONE_SIDED = 1.645
"""Standard errors below the mean where the lower 95 % bound of a one-sided test lies."""

SPLIT = "valid"


def bench(
    model: Model,
    control: Control,
    *,
    against: Model | None,
    batches: list[int],
    repeats: int,
    peer: bool,
    num: int = 0,
    corpus: Corpus | None = None,
    judge: Model | None = None,
) -> dict[str, Any]:
    """Times `Model.draw` at each batch size: guided, unguided, guided as released, and what is `against` it.

    `num` texts, if any, are then drawn guided and as released, and judged by the rules of their `corpus`. Raises
    UserError for a control without energy, a model that follows none, and a run against it that is no autoregression.
    """
    energy = followed(model, control)
    if against is not None and not isinstance(against.method, Autoregressive):
        raise UserError(f"--against is {type(against.method).__name__}; give an autoregressive run.")
    method: Any = model.method
    rules = None if corpus is None or not num else Rules(corpus, [control])
    where, models = machine(), {"unguided": model, "released": as_released(model), "guided": model}
    costs = {name: equivalents(each, None if name == "unguided" else energy) for name, each in models.items()}
    result = where | {
        "control": str(control),
        "samplers": {name: dataclasses.asdict(models[name].method.sampler) for name in ("guided", "released")},
        "rate_unit": method.states.spread or 1.0,
        "batches": {},
    }
    for size in batches:
        say(f"batches of {size} …")
        result["batches"][str(size)] = at_batch(models, control, against, costs, size, repeats, peer)
    result |= peak_memory()
    return result if rules is None else result | {"texts": worth(models, control, rules, judge, num)}


def followed(model: Model, control: Control) -> Energy:
    """The energy of a control. Raises UserError if it has none, or the model cannot follow one."""
    energy = asked(control, model.steered).energy
    if energy is None:
        raise UserError(
            f"The control {control} has no energy, and costs nothing: give one that guides, with --control."
        )
    if not isinstance(model.method, DiffusionLM):
        raise UserError(f"{type(model.method).__name__} is not guided as released: give a run of DiffusionLM.")
    return energy


def unsteered(control: Control, model: Model) -> Control | None:
    """What is left of a control without its energy: the length, if it asks for one or implies it."""
    tokens = asked(control, model.steered).length
    return length(tokens - 1) if tokens > 0 else None


def as_released(model: Model) -> Model:
    """The model, guided as the paper's code does it; clamp and temperature stay the model's own."""
    method: Any = model.method
    sampler = dataclasses.replace(method.sampler, name="ddim", eta=1.0, steps=200, guidance=RELEASED)
    return dataclasses.replace(model, method=dataclasses.replace(method, sampler=sampler))


def equivalents(model: Model, energy: Energy | None) -> float:
    """Matrix-product FLOPs of one text at full length, in forward passes of the bare denoiser.

    The guidance stands in a branch, in a loop that stops once all have enough: it is counted at every step between
    `guidance.first` and `last`, with all its `updates`, which is the most it can cost, and exact where `enough` is 0.
    """
    method: Any = model.method
    sampler = method.sampler
    keys, given = keys_for(jax.random.key(0), jnp.arange(1)), nothing_given(1, method.language.length)
    more = {} if energy is None else {"energy": energy}
    flops = lambda share: matmul_flops(
        lambda params, keys, given: method.sample(params, keys, given, **more), model.params, keys, given, share=share
    )
    plain = flops(0.0)
    one_update = (flops(1.0) - plain) / sampler.steps  # the count takes a while loop's body once
    s, how = np.asarray(ticks(sampler.steps)[1]), sampler.guidance
    guided = int(((how.last <= s) & (s <= how.first)).sum())
    one_pass = matmul_flops(forward(method, model.params, 1)) / sampler.steps
    return (plain + guided * how.updates * one_update) / one_pass


def at_batch(
    models: dict[str, Model],
    control: Control,
    against: Model | None,
    costs: dict[str, float],
    size: int,
    repeats: int,
    peer: bool,
) -> dict[str, Any]:
    """Every way of drawing `size` texts, timed in turns: seconds a text, ratios, and the programs compiled for it."""
    asks = {name: unsteered(control, models["guided"]) if name == "unguided" else control for name in models}
    calls = {name: _draws(each, size, asks[name]) for name, each in models.items()}
    programs = {name: _compiling(models[name], call) for name, call in calls.items()}
    others = other_targets(models["guided"], control)
    added = [_compiling(models["guided"], _draws(models["guided"], size, other))[0] for other in others]
    if against is not None:
        calls = {"autoregressive": _draws(against, size, None), **calls}
        calls["autoregressive"]()
    makers = gpt2(models["guided"].method, programs["guided"][1].tokens) if peer else {}
    best, rate, over = race("guided", calls, makers, repeats)
    timings = over.pop("timings")
    for name in ("unguided", "released"):
        over |= ratios(name, {other: best[other] for other in best if other != "guided"})
    rows = {name: _row(best[name], size, costs.get(name)) for name in [*makers, *calls] if name in best}
    for name, (new, drawn) in programs.items():
        rows[name] |= {"calls": float(np.mean(drawn.calls)), "compilations": new}
    return {
        "rows": rows,
        "other_targets": [str(other) for other in others],
        "compilations_of_other_targets": sum(added),
        "machine_gflop_per_second": rate / 1e9,
        **over,
        "timings": timings,
    }


def other_targets(model: Model, control: Control) -> list[Control]:
    """The control with other values of its first trained label; with another weight, if it has no such label."""
    leaf = next((leaf for leaf in control.leaves() if leaf.name not in {*RULES, *SYNTAX}), None)
    if leaf is None:
        return [control * 2.0]
    known = trained(model.steered, leaf.name)[0].values
    return [_retargeted(control, leaf.name, value) for value in known if value not in leaf.values][:OTHERS]


def worth(
    models: dict[str, Model], control: Control, rules: Rules, judge: Model | None, num: int
) -> dict[str, dict[str, Score]]:
    """Of `num` texts, by the same seed: how many are what was asked for, and what a judge says of them."""
    say(f"{num} texts of each …")
    names = ("released", "guided") if judge is None else tuple(models)
    asks = {name: unsteered(control, models["guided"]) if name == "unguided" else control for name in models}
    texts = {name: _texts(models[name], num, asks[name]) for name in names}
    held = {name: [rules.met(control, text) for text in texts[name]] for name in names}
    kind = rules.kind(control, SPLIT)
    scores: dict[str, dict[str, Score]] = {name: {"control_success": mean(held[name], "share", kind)} for name in names}
    if judge is not None:
        real = {name: evenly(models["guided"], rules.corpus, name, num) for name in (SPLIT, "train")}
        sizes, rates = {"samples": num, SPLIT: len(real[SPLIT])}, {name: judged(judge, real[name]) for name in real}
        for name in names:
            found = generative(judge, {"samples": judged(judge, texts[name]), **rates}, SPLIT, sizes)
            scores[name] |= {each: found[each] for each in ("generative_perplexity", "perplexity_ratio")}
    more = [one - other for one, other in zip(held["guided"], held["released"], strict=True)]
    difference = mean(more, "share", f"paired by text; lower_95 is one-sided: mean - {ONE_SIDED} standard errors")
    difference["lower_95"] = difference["value"] - ONE_SIDED * difference["se"]
    return scores | {"guided_minus_released": {"control_success": difference}}


def _draws(model: Model, num: int, control: Control | None) -> Callable[[], Drawn]:
    return lambda: model.draw(num, control=control)


def _texts(model: Model, num: int, control: Control | None) -> list[str]:
    return [model.tokenizer.decode(row) for row in model.draw(num, control=control).tokens]


def _compiling(model: Model, call: Callable[[], Drawn]) -> tuple[int, Drawn]:
    """How many programs of the sampler a call has added, and what it has drawn."""
    sample = compiled_once(model.method, "sample", mesh_of(model.params))
    before = sample._cache_size()
    drawn = call()
    return sample._cache_size() - before, drawn


def _retargeted(control: Control, name: str, value: str) -> Control:
    if control.kind == "is":
        return dataclasses.replace(control, values=(value,)) if control.name == name else control
    return dataclasses.replace(control, parts=tuple(_retargeted(part, name, value) for part in control.parts))


def _row(best: Seconds, size: int, cost: float | None) -> dict[str, Any]:
    """A text's share of a batch; forward passes are told of what runs the denoiser alone."""
    row = {"seconds_per_text": best.wall / size, "cpu_seconds_per_text": best.cpu / size}
    return row if cost is None else row | {"forward_equivalents": cost}
