"""Cost and gain of guidance: against no guidance, the released guidance and autoregression."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.benchmarks.sampling import forward_passes, gpt2
from jtextdiff.benchmarks.timing import Seconds, compare_timings, machine_info, peak_memory, ratios
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.control.controls import TRAINING_FREE, Control, length
from jtextdiff.control.resolve import resolve
from jtextdiff.control.trained import trained_classifier
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.constituents import SYNTAX_CONTROLS
from jtextdiff.devices.flops import matmul_flops
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.evaluation.control_success import ControlChecker, control_checker
from jtextdiff.evaluation.label_judges import phrase_judge
from jtextdiff.evaluation.likelihood import check_judge, generative_perplexity, judge_nll, judged_texts
from jtextdiff.evaluation.score import Score, mean_score, real_texts
from jtextdiff.inference.batched import jitted
from jtextdiff.inference.model import Model
from jtextdiff.inference.sample_batches import SampleOutput
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.components.types import nothing_given
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.sampling.energies import Energy
from jtextdiff.sampling.guidance import RELEASED
from jtextdiff.sampling.loop import time_grid

OTHER_TARGETS = 2
"""Values of a label, besides the one in the control, that are sampled to check that they compile no program."""

ONE_SIDED = 1.645
"""Standard errors below the mean of the lower 95 % bound of a one-sided test."""

SPLIT = "valid"


def benchmark_guidance(
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
    """Times `Model.draw` at each batch size: guided, unguided, guided as released, and `against`.

    If `num` is above 0, that many texts are then sampled with both kinds of guidance and checked with their `corpus`.
    Raises UserError if the control has no energy, if the model follows none, or if `against` is not autoregressive.
    """
    energy = followed_energy(model, control)
    if against is not None and not isinstance(against.method, Autoregressive):
        raise UserError(f"--against is {type(against.method).__name__}; give an autoregressive run.")
    method: Any = model.method
    checker = None
    if corpus is not None and num:
        checker = control_checker(corpus, [control], lambda label: phrase_judge(corpus, label, SPLIT))
    info, models = machine_info(), {"unguided": model, "released": with_released_guidance(model), "guided": model}
    costs = {name: forward_equivalents(models[name], None if name == "unguided" else energy) for name in models}
    result = info | {
        "control": str(control),
        "samplers": {name: dataclasses.asdict(models[name].method.sampler) for name in ("guided", "released")},
        "rate_unit": method.states.spread or 1.0,
        "batches": {},
    }
    for size in batches:
        say(f"batches of {size} …")
        result["batches"][str(size)] = time_batch(models, control, against, costs, size, repeats, peer)
    result |= peak_memory()
    return result if checker is None else result | {"texts": score_texts(models, control, checker, judge, num)}


def followed_energy(model: Model, control: Control) -> Energy:
    """Returns the energy of a control. Raises UserError if it has none, or if the model is not a Diffusion-LM."""
    energy = resolve(control, model).energy
    if energy is None:
        raise UserError(f"The control {control} has no energy, so it costs nothing: give --control one that guides.")
    if not isinstance(model.method, DiffusionLM):
        raise UserError(f"The released guidance needs a run of DiffusionLM, got {type(model.method).__name__}.")
    return energy


def without_energy(control: Control, model: Model) -> Control | None:
    """Returns the control's length, given or implied, without its energy; None if the length is free."""
    tokens = resolve(control, model).length
    return length(tokens - 1) if tokens > 0 else None


def with_released_guidance(model: Model) -> Model:
    """Returns the model with the guidance of the paper's code; clamp and temperature stay the model's own."""
    method: Any = model.method
    sampler = dataclasses.replace(method.sampler, name="ddim", eta=1.0, steps=200, guidance=RELEASED)
    return dataclasses.replace(model, method=dataclasses.replace(method, sampler=sampler))


def forward_equivalents(model: Model, energy: Energy | None) -> float:
    """Returns the matrix-product FLOPs of one text at full length, in forward passes of the denoiser alone.

    Guidance is a branch with a loop that stops once all texts are below the energy threshold. It is counted at every
    step between `guidance.start` and `stop`, with all `updates`: an upper bound, exact if `energy_threshold` is 0.
    """
    method: Any = model.method
    sampler, guidance = method.sampler, method.sampler.guidance
    keys, given = keys_for(jax.random.key(0), jnp.arange(1)), nothing_given(1, method.text_spec.length)
    terms = {} if energy is None else {"energy": energy}

    def flops(share: float) -> float:
        return matmul_flops(
            lambda params, keys, given: method.sample(params, keys, given, **terms),
            model.params,
            keys,
            given,
            share=share,
        )

    unguided = flops(0.0)
    one_update = (flops(1.0) - unguided) / sampler.steps  # the body of a while loop is counted once
    guided_steps = int(np.sum(guidance.acts_at(time_grid(sampler.steps)[1])))
    one_pass = matmul_flops(forward_passes(method, model.params, 1)) / sampler.steps
    return (unguided + guided_steps * guidance.updates * one_update) / one_pass


def time_batch(
    models: dict[str, Model],
    control: Control,
    against: Model | None,
    costs: dict[str, float],
    size: int,
    repeats: int,
    peer: bool,
) -> dict[str, Any]:
    """Times every way to sample `size` texts, interleaved: seconds per text, ratios, and programs compiled."""
    guided = models["guided"]
    controls = {name: without_energy(control, guided) if name == "unguided" else control for name in models}
    calls = {name: _draw_call(models[name], size, controls[name]) for name in models}
    compiled = {name: _count_compilations(models[name], call) for name, call in calls.items()}
    retargeted = other_targets(guided, control)
    added = [_count_compilations(guided, _draw_call(guided, size, target))[0] for target in retargeted]
    if against is not None:
        calls = {"autoregressive": _draw_call(against, size, None), **calls}
        calls["autoregressive"]()
    peers = gpt2(guided.method, compiled["guided"][1].tokens) if peer else {}
    best, rate, report = compare_timings("guided", calls, peers, repeats)
    timings = report.pop("timings")
    for name in ("unguided", "released"):
        report |= ratios(name, {call: best[call] for call in best if call != "guided"})
    rows = {name: _row(best[name], size, costs.get(name)) for name in [*peers, *calls] if name in best}
    for name, (compilations, output) in compiled.items():
        rows[name] |= {"calls": float(np.mean(output.calls)), "compilations": compilations}
    return {
        "rows": rows,
        "other_targets": [str(target) for target in retargeted],
        "compilations_of_other_targets": sum(added),
        "machine_gflop_per_second": rate / 1e9,
        **report,
        "timings": timings,
    }


def other_targets(model: Model, control: Control) -> list[Control]:
    """Returns the control with other values of its first trained label; with another weight if it has no such label."""
    trained = (leaf for leaf in control.leaves() if leaf.name not in {*TRAINING_FREE, *SYNTAX_CONTROLS})
    leaf = next(trained, None)
    if leaf is None:
        return [control * 2.0]
    values = trained_classifier(leaf.name, model)[0].values
    others = [value for value in values if value not in (*leaf.values, "none")]
    return [_retargeted(control, leaf.name, value) for value in others[:OTHER_TARGETS]]


def score_texts(
    models: dict[str, Model], control: Control, checker: ControlChecker, judge: Model | None, num: int
) -> dict[str, dict[str, Score]]:
    """Returns the control success of `num` texts with the same seed, and their perplexity if there is a judge."""
    say(f"{num} texts of each …")
    guided, names = models["guided"], ("released", "guided") if judge is None else tuple(models)
    controls = {name: without_energy(control, guided) if name == "unguided" else control for name in models}
    real = {split: real_texts(guided, checker.corpus, split, num) for split in (SPLIT, "train")}
    if judge is not None:
        check_judge(judge, [*real[SPLIT], *real["train"]])
    texts = {name: _texts(models[name], num, controls[name]) for name in names}
    success = {name: [checker.satisfied(control, text) for text in texts[name]] for name in names}
    judged_how = checker.how(control)
    scores: dict[str, dict[str, Score]] = {
        name: {"control_success": mean_score(success[name], "share", judged_how)} for name in names
    }
    if judge is not None:
        rates = {split: judge_nll(judge, real[split]) for split in real}
        for name in names:
            samples = judged_texts(judge, texts[name])
            sizes = {"samples": len(samples), SPLIT: len(real[SPLIT])}
            judged = generative_perplexity(judge, {"samples": judge_nll(judge, samples), **rates}, SPLIT, sizes)
            scores[name] |= {key: judged[key] for key in ("generative_perplexity", "perplexity_ratio")}
    gains = [ours - theirs for ours, theirs in zip(success["guided"], success["released"], strict=True)]
    paired = f"paired by text; lower_95 is one-sided: mean - {ONE_SIDED} standard errors"
    difference = mean_score(gains, "share", paired)
    difference["lower_95"] = difference["value"] - ONE_SIDED * difference["se"]
    return scores | {"guided_minus_released": {"control_success": difference}}


def _draw_call(model: Model, num: int, control: Control | None) -> Callable[[], SampleOutput]:
    return lambda: model.draw(num, control=control)


def _texts(model: Model, num: int, control: Control | None) -> list[str]:
    return [model.tokenizer.decode(row) for row in model.draw(num, control=control).tokens]


def _count_compilations(model: Model, call: Callable[[], SampleOutput]) -> tuple[int, SampleOutput]:
    """Returns the number of programs of the sampler that a call compiles, and the output of the call."""
    sample = jitted(model.method, "sample", mesh_of(model.params))
    before = sample._cache_size()
    output = call()
    return sample._cache_size() - before, output


def _retargeted(control: Control, name: str, value: str) -> Control:
    """Returns the control with another value of the label `name`."""
    if control.kind == "is":
        return dataclasses.replace(control, values=(value,)) if control.name == name else control
    return dataclasses.replace(control, parts=tuple(_retargeted(part, name, value) for part in control.parts))


def _row(best: Seconds, size: int, cost: float | None) -> dict[str, Any]:
    """Returns the seconds per text of a batch, and the forward passes per text where they are counted."""
    row = {"seconds_per_text": best.wall / size, "cpu_seconds_per_text": best.cpu / size}
    return row if cost is None else row | {"forward_equivalents": cost}
