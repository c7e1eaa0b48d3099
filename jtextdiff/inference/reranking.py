"""Best-of-n by energy and minimum Bayes risk."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control, parse_controls
from jtextdiff.control.requests import SampleRequest
from jtextdiff.inference.model import Model, ignore_progress
from jtextdiff.metrics.bleu import sentence_bleu
from jtextdiff.metrics.units import units


class SamplingSpec(NamedTuple):
    """What samples are conditioned on, and how each is chosen among several candidates."""

    control: Control | None = None  # of all samples, or …
    targets: tuple[SampleRequest, ...] = ()  # … of each in turn
    targets_source: str | None = None  # where the targets come from, for reports
    best_of: int = 1  # candidates, of which the lowest energy wins
    mbr: int = 1  # candidates, of which the highest mean BLEU with the others wins

    @property
    def num_candidates(self) -> int:
        """Candidates per sample."""
        return max(self.best_of, self.mbr)

    def requests(self, num: int) -> list[SampleRequest]:
        """Returns the request of each of `num` samples; targets are repeated in order if they are fewer."""
        requests = self.targets or (SampleRequest(self.control),)
        return [requests[index % len(requests)] for index in range(num)]

    def __str__(self) -> str:
        if self.num_candidates == 1:
            return "all texts as they were drawn"
        criterion = f"the controls' own energy, of {self.best_of}" if self.best_of > 1 else f"mean BLEU, of {self.mbr}"
        return f"each text chosen by {criterion}"


def sampling_spec(flags: argparse.Namespace) -> SamplingSpec:
    """Returns the sampling of the command line.

    Raises UserError for numbers below 1, for both criteria at once, and for the best by energy without an energy.
    """
    spec = SamplingSpec(parse_controls(flags.control), best_of=flags.best_of, mbr=flags.mbr)
    for name, number in (("best_of", spec.best_of), ("mbr", spec.mbr)):
        if number < 1:
            raise UserError(f"--{name} must be at least 1, got {number}.")
    if spec.best_of > 1 and spec.mbr > 1:
        raise UserError("--best_of and --mbr are two ways to choose: give one of them.")
    has_energy = spec.control is not None and any(leaf.name != "length" for leaf in spec.control.leaves())
    if spec.best_of > 1 and not has_energy:
        raise UserError("--best_of chooses by the energy of the controls: give one with --control.")
    return spec


def sample_and_rerank(
    model: Model,
    num: int,
    spec: SamplingSpec,
    *,
    seed: int = 0,
    template: str | None = None,
    progress: Callable[[int], None] = ignore_progress,
) -> tuple[list[str], float]:
    """Returns `num` texts, each chosen among its candidates, and the mean network calls per text, candidates included.

    The best has the lowest energy of its controls, by their own classifiers. Minimum Bayes risk takes the highest mean
    BLEU with the other candidates (Kumar & Byrne 2004, used by Li et al. 2022). Candidates are numbered text by text,
    so text i does not depend on `num`. `progress` receives the number of texts in each finished batch.
    """
    candidates = spec.num_candidates
    inputs: dict[str, Any] = {"control": spec.control, "template": template}
    if spec.targets:
        requests = [request for request in spec.requests(num) for _ in range(candidates)]
        if any(request.control for request in requests):
            inputs["control"] = [request.control for request in requests]
        if any(request.template for request in requests):
            inputs["template"] = [request.template for request in requests]
    output = model.draw(num * candidates, seed=seed, progress=progress, **inputs)
    texts = [model.tokenizer.decode(row) for row in output.tokens]
    calls = float(np.mean(output.calls)) * candidates
    if candidates == 1:
        return texts, calls
    energies = model.energy(texts, spec.control) if spec.best_of > 1 and spec.control is not None else None
    selected = []
    for start in range(0, len(texts), candidates):
        rivals = texts[start : start + candidates]
        if energies is None:
            index = int(np.argmax(mean_bleu_with_others(rivals)))
        else:
            index = int(np.argmin(energies[start : start + candidates]))
        selected.append(rivals[index])
    return selected, calls


def mean_bleu_with_others(texts: list[str]) -> list[float]:
    """Returns the mean BLEU of each text with every other; 0 for a single text."""
    words = [units(text) for text in texts]
    num_others = max(len(texts) - 1, 1)
    return [
        sum(sentence_bleu(text, other) for place, other in enumerate(words) if place != index) / num_others
        for index, text in enumerate(words)
    ]
