"""Energies of keyword and regex controls."""

import re
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control
from jtextdiff.control.trained_model import TrainedModel
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.sampling.energies import Energy, Or


def keyword_energy(control: Control, model: TrainedModel) -> Energy:
    """Returns −log p(the text contains one of the control's phrases)."""
    phrases = [known_tokens([phrase], model.tokenizer) for phrase in control.values]
    energies = tuple(_phrase_energy([[token] for token in phrase], model) for phrase in phrases)
    return energies[0] if len(energies) == 1 else Or(energies=energies)


def regex_energy(control: Control, model: TrainedModel) -> Energy:
    """Returns −log p(the text contains a token that matches the control's pattern as a whole)."""
    try:
        pattern = re.compile(control.values[0])
    except re.error as error:
        raise UserError(f"regex={control.values[0]} is no regular expression: {error}.") from None
    tokens = matching_tokens(pattern, model.tokenizer)
    if not tokens:
        raise UserError(f"regex={control.values[0]} matches none of the model's {model.tokenizer.vocab_size:,} tokens.")
    return _phrase_energy([tokens], model)


def matching_tokens(pattern: re.Pattern[str], tokenizer: Tokenizer) -> list[int]:
    """Returns the tokens that match from their first to their last character."""
    return [token for token, text in enumerate(tokenizer.token_texts) if text and pattern.fullmatch(text)]


def _phrase_energy(allowed_tokens: list[list[int]], model: TrainedModel) -> Energy:
    """The energy of a phrase, given the tokens that each of its positions allows."""
    method: Any = model.method  # Controllable: `resolve` has checked it
    longest = method.text_spec.length - 1
    if len(allowed_tokens) > longest:
        raise UserError(f"A phrase of {len(allowed_tokens)} tokens: this model generates at most {longest} tokens.")
    allowed = np.zeros((len(allowed_tokens), method.text_spec.vocab_size), bool)
    for position, tokens in enumerate(allowed_tokens):
        allowed[position, tokens] = True
    return method.keyword_energy(model.params, jnp.asarray(allowed))


def known_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """Returns the tokens of words or phrases, in order. Raises UserError for one outside the vocabulary."""
    token_ids = [tokenizer.encode([text])[0].tolist() for text in texts]
    for text, tokens in zip(texts, token_ids, strict=True):
        if not tokens or (tokenizer.unk is not None and tokenizer.unk in tokens):
            raise UserError(f"The model's vocabulary does not contain {text!r}: it can neither write nor keep it.")
    return [token for tokens in token_ids for token in tokens]
