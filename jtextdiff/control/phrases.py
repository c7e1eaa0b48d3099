"""Energies of keyword and regex controls."""

import functools
import re
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control
from jtextdiff.control.trained import Steered
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.methods.method import Latent
from jtextdiff.sampling.energies import Energy, Or, Phrase


def keyword_energy(control: Control, model: Steered) -> Energy:
    phrases = [known_words([phrase], model.tokenizer) for phrase in control.values]
    made = tuple(_phrase([[token] for token in ids], model) for ids in phrases)
    return made[0] if len(made) == 1 else Or(energies=made)


def regex_energy(control: Control, model: Steered) -> Energy:
    try:
        pattern = re.compile(control.values[0])
    except re.error as error:
        raise UserError(f"regex={control.values[0]} is no regular expression: {error}.") from None
    words = matching(pattern, model.tokenizer)
    if not words:
        raise UserError(f"regex={control.values[0]} matches none of the model's {model.tokenizer.vocab_size:,} words.")
    return _phrase([words], model)


def matching(pattern: re.Pattern[str], tokenizer: Tokenizer) -> list[int]:
    """The tokens that match from their first to their last character."""
    return [token for token, word in enumerate(_spellings(tokenizer)) if word and pattern.fullmatch(word)]


@functools.lru_cache(maxsize=4)
def _spellings(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode([token]).strip() for token in range(tokenizer.vocab_size)]


def _phrase(places: list[list[int]], model: Steered) -> Energy:
    """The energy of tokens side by side, each one of those that its place allows; of a latent, in any order."""
    most = model.method.language.length - 1
    if len(places) > most:
        raise UserError(f"A phrase of {len(places)} words: this model writes at most {most} words.")
    allowed = np.zeros((len(places), model.method.language.vocab_size), bool)
    for place, tokens in enumerate(places):
        allowed[place, tokens] = True
    if isinstance(model.method, Latent):
        return model.method.mentioning(model.params, jnp.asarray(allowed))
    return Phrase(table=model.table, allowed=jnp.asarray(allowed), process=model.method.states.process)


def known_words(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """The tokens of words that are to be written or to stay. Raises UserError for one that the model does not know."""
    ids = [tokenizer.encode([text])[0].tolist() for text in texts]
    for text, tokens in zip(texts, ids, strict=True):
        if not tokens or (tokenizer.unk is not None and tokenizer.unk in tokens):
            raise UserError(f"The model does not know {text!r}: it can neither write nor keep it.")
    return [token for tokens in ids for token in tokens]
