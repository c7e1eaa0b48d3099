"""Choosing: of several texts drawn for one place, the lowest in energy, or the one that is most like the others."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control, together
from jtextdiff.control.requests import Wish
from jtextdiff.inference.model import Model
from jtextdiff.metrics.bleu import sentence_bleu


class Choice(NamedTuple):
    """What is wanted of all texts, or of each in turn, and of how many each is the best by energy, or by likeness."""

    control: Control | None = None
    targets: tuple[Wish, ...] = ()
    spelling: str | None = None  # of the targets
    best_of: int = 1
    mbr: int = 1

    @property
    def many(self) -> int:
        """Texts that are drawn for one."""
        return max(self.best_of, self.mbr)

    def of(self, num: int) -> list[Wish]:
        """What is wanted of each of `num` texts: of the targets the first, the second, … and the first again."""
        wished = self.targets or (Wish(self.control),)
        return [wished[place % len(wished)] for place in range(num)]

    def __str__(self) -> str:
        if self.many == 1:
            return "all texts as they were drawn"
        how = f"the controls' own energy, of {self.best_of}" if self.best_of > 1 else f"mean BLEU, of {self.mbr}"
        return f"each text chosen by {how}"


def choice(flags: argparse.Namespace) -> Choice:
    """What the command line asks for.

    Raises UserError for numbers below 1, for both at once, and for the best by no energy at all.
    """
    found = Choice(together(flags.control), best_of=flags.best_of, mbr=flags.mbr)
    for name, number in (("best_of", found.best_of), ("mbr", found.mbr)):
        if number < 1:
            raise UserError(f"--{name} must be at least 1, got {number}.")
    if found.best_of > 1 and found.mbr > 1:
        raise UserError("--best_of and --mbr are two ways to choose: give one of them.")
    if found.best_of > 1 and (found.control is None or all(part.name == "length" for part in found.control.leaves())):
        raise UserError("--best_of chooses by the energy of the controls: give one with --control.")
    return found


def chosen(
    model: Model, num: int, choice: Choice, *, progress: Callable[[int], None] = lambda done: None, **asked: Any
) -> tuple[list[str], float]:
    """`num` texts, chosen, and the network calls that one has cost; `progress` is told of every text that is drawn.

    The best has the least energy of its controls, which is their classifiers' own opinion; the likest the highest mean
    BLEU with the others (Kumar & Byrne 2004, as Li et al. 2022 use it). Places are drawn one after another, so that
    text i is the same however many are asked for.
    """
    if choice.targets:
        wished = [each for each in choice.of(num) for _ in range(choice.many)]
        controls, templates = zip(*wished, strict=True)
        asked |= {"control": controls} if any(controls) else {}
        asked |= {"template": templates} if any(templates) else {}
    elif choice.control is not None:
        asked["control"] = choice.control
    drawn = model.draw(num * choice.many, progress=progress, **asked)
    texts = [model.tokenizer.decode(row) for row in drawn.tokens]
    calls = float(np.mean(drawn.calls)) * choice.many
    if choice.many == 1:
        return texts, calls
    energy = model.energy(texts, choice.control) if choice.best_of > 1 and choice.control is not None else []
    best = []
    for start in range(0, len(texts), choice.many):
        rivals = texts[start : start + choice.many]
        worth = [-value for value in energy[start : start + choice.many]] if energy else likeness(rivals)
        best.append(rivals[int(np.argmax(worth))])
    return best, calls


def likeness(texts: list[str]) -> list[float]:
    """The mean BLEU of each text with every other."""
    words = [text.split() for text in texts]
    others = [words[:place] + words[place + 1 :] for place in range(len(words))]
    mean = lambda one, rest: sum(sentence_bleu(one, other) for other in rest) / max(len(rest), 1)
    return [mean(one, rest) for one, rest in zip(words, others, strict=True)]
