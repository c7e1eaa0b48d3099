"""Templates and texts as model inputs."""

import contextlib
import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.data.batches import Batch
from jtextdiff.data.tokenizer import MASK, Tokenizer
from jtextdiff.methods.components.types import Given, TextSpec, nothing_given
from jtextdiff.methods.masked import Masked
from jtextdiff.methods.method import HasKnownLength, Method

NO_TOKEN = -1
"""An id that no token has."""


def read_template(template: str | Sequence[str] | None, tokenizer: Tokenizer, method: Method, num: int) -> Given:
    """Returns what a template fixes, for `num` rows; of several templates, each fixes a row of its own.

    Without a template nothing is fixed. Raises UserError for a template that the model cannot fill.
    """
    length = method.text_spec.length
    if template is None:
        return nothing_given(num, length)
    if not isinstance(template, str):
        if not isinstance(template, Iterable):
            raise UserError(f"template is a {type(template).__name__}, {template}; expected a text.")
        rows = [read_template(row, tokenizer, method, 1) for row in template]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)
    ids, fixed = tokenizer.encode_template(template)
    if fixed.all():
        raise UserError(f"The template {template!r} leaves nothing to write. Put {MASK} for each word to write.")
    if len(ids) + 1 > length:
        raise UserError(f"The template has {len(ids) + 1} tokens (its end counted); this model generates {length}.")
    if tokenizer.unk is not None and (ids[fixed] == tokenizer.unk).any():
        unknown = [word for piece in template.split(MASK) for word in tokenizer.unknown_words(piece)]
        raise UserError(
            f"The template has words outside the model's vocabulary: {', '.join(dict.fromkeys(unknown))}. Put words "
            f"there that its training text has, or {MASK}."
        )
    if method.prefix_only and fixed[np.argmin(fixed) :].any():
        raise UserError(
            f"{type(method).__name__} generates from left to right: fixed words can only stand at the start. "
            "Masked, D3PM and DiffusionLM can fill a gap."
        )
    return _given_of_template(ids, fixed, method, num)


def _given_of_template(ids: Int[np.ndarray, "m"], fixed: Bool[np.ndarray, "m"], method: Method, num: int) -> Given:
    """A template and its EOS as a Given of `num` equal rows."""
    text_spec, size = method.text_spec, len(ids) + 1
    tokens = np.full((num, text_spec.length), text_spec.pad, np.int32)
    all_fixed = np.zeros((num, text_spec.length), bool)
    tokens[:, : size - 1] = np.where(fixed, ids, text_spec.pad)
    tokens[:, size - 1] = text_spec.eos
    all_fixed[:, : size - 1] = fixed
    all_fixed[:, size - 1] = not method.prefix_only
    return Given(jnp.asarray(tokens), jnp.asarray(all_fixed), jnp.full(num, size, jnp.int32))


class ChatInput(NamedTuple):
    """A question as the input of a method, and where its answers begin and end."""

    method: Method
    given: Given
    start: int
    ends: set[int]  # tokens that end an answer

    def answer(self, tokens: Int[np.ndarray, "l"]) -> Int[np.ndarray, "m"]:
        """Returns the tokens of an answer up to its end."""
        tokens = tokens[self.start :]
        return tokens[: np.argmax(np.isin(tokens, list(self.ends)))]  # the last one ends it


def read_chat(question: str, tokenizer: Tokenizer, method: Method, num: int, length: int) -> ChatInput:
    """Returns the input of `num` answers with up to `length` tokens each.

    The prompt is fixed, and so is EOS after the answer; between them EOS and PAD are tokens like others. Raises
    UserError for a question that the model cannot answer.
    """
    if not isinstance(method, Masked):
        raise UserError(f"Only Masked answers a question by filling in masked tokens; this is {type(method).__name__}.")
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"The question is {question!r}; expected a text that asks something.")
    with mistakes(ValueError):
        prompt, ends = tokenizer.encode_chat(question)
    spec, size = method.text_spec, len(prompt) + check_number(length, "length", 1) + 1
    if size > spec.length:
        fits = size <= method.trunk.max_length
        longer = f", or load a published checkpoint with --override text.length={size}" if fits else ""
        raise UserError(
            f"The prompt has {len(prompt)} tokens, the answer {length} and its end one; this model generates "
            f"{spec.length}. Ask for a shorter answer{longer}."
        )
    tokens = np.full(size, spec.eos, np.int32)
    tokens[: len(prompt)] = prompt
    fixed = (np.arange(size) < len(prompt)) | (np.arange(size) == size - 1)
    tokens, fixed = (jnp.broadcast_to(jnp.asarray(row), (num, size)) for row in (tokens, fixed))
    given = Given(tokens, fixed, jnp.full(num, size, jnp.int32))
    method = dataclasses.replace(method, text_spec=dataclasses.replace(spec, eos=NO_TOKEN, pad=NO_TOKEN))
    return ChatInput(method, given, len(prompt), ends)


def check_texts(texts: Sequence[str], name: str = "texts") -> list[str]:
    """Returns the texts as a list. Raises UserError for one text instead of several, or for anything else."""
    if isinstance(texts, str):
        raise UserError(f"{name} is one text, {texts[:60]!r}; expected a list of texts, such as [{texts[:20]!r}].")
    if not isinstance(texts, Iterable) or isinstance(texts, set | frozenset | dict):
        raise UserError(f"{name} is a {type(texts).__name__}, {str(texts)[:60]}; expected a list of texts.")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{name}[{i}] is a {type(text).__name__}, {str(text)[:60]}; expected a text.")
    return texts


def check_ids(ids: Sequence[int] | None, num: int) -> list[int]:
    """Returns the numbers of `num` texts, by default 0, 1, …. Raises UserError unless they are as many, and whole."""
    numbers = list(range(num)) if ids is None else [check_number(number, "ids", lowest=0) for number in ids]
    if len(numbers) != num:
        raise UserError(f"ids are {len(numbers)} numbers; expected one for each of {num} texts.")
    return numbers


def check_number(value: Any, name: str, lowest: int = -(2**31), highest: int = 2**32 - 1) -> int:
    """Returns the number. Raises UserError for one that is not whole, or out of range."""
    with contextlib.suppress(TypeError):
        if not isinstance(value, bool) and lowest <= operator.index(value) <= highest:
            return operator.index(value)
    raise UserError(f"{name} must be a whole number from {lowest} to {highest}, got {value!r}.")


def read_texts(texts: Sequence[str], tokenizer: Tokenizer, text_spec: TextSpec) -> Batch:
    """Returns texts as ids, EOS after each and PAD after that.

    Raises UserError for one longer than the model's, and for what is no list of texts.
    """
    rows = tokenizer.encode(check_texts(texts))
    for row in rows:
        if len(row) + 1 > text_spec.length:
            raise UserError(
                f"A text of {len(row) + 1} tokens (its end counted) is longer than the {text_spec.length} that this "
                f"model was made for: {tokenizer.decode(row)[:60]!r}…"
            )
    return batch_of(rows, text_spec)


def batch_of(rows: Sequence[Any], text_spec: TextSpec) -> Batch:
    """Returns rows of ids, each shorter than the longest text, with EOS after each and PAD after that."""
    tokens = np.full((len(rows), text_spec.length), text_spec.pad, np.int32)
    valid = np.zeros(tokens.shape, bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row) + 1] = [*row, text_spec.eos]
        valid[i, : len(row) + 1] = True
    return Batch(tokens, valid, np.zeros_like(valid), {})


def unknown_words(texts: Sequence[str], batch: Batch, tokenizer: Tokenizer) -> list[list[str]]:
    """Returns the words of each text that its tokens in `batch` replace by UNK."""
    has_unknown = (batch.tokens == tokenizer.unk).any(axis=1)
    return [tokenizer.unknown_words(text) if found else [] for text, found in zip(texts, has_unknown, strict=True)]


def note_on_unknown(unknown: Sequence[Sequence[str]]) -> str:
    """Returns how many texts have unknown words, and the first of these; "" without any."""
    distinct = list(dict.fromkeys(word for of_text in unknown for word in of_text))
    if not distinct:
        return ""
    words = ", ".join(distinct[:5]) + (", …" if len(distinct) > 5 else "")
    num = sum(map(bool, unknown))
    return f"{num} of {len(unknown)} texts have words outside the model's vocabulary: {words}."


def with_lengths(given: Given, lengths: Sequence[int], method: Method) -> Given:
    """Returns `given` with these lengths, as `Given` has them: one for all rows, or one per row.

    A method that models PAD like any other token takes no lengths: its EOS and PAD are fixed tokens.
    """
    num, longest = given.tokens.shape
    row_lengths = jnp.broadcast_to(jnp.asarray(lengths, jnp.int32), (num,))
    if not isinstance(method, HasKnownLength) or method.known_length:
        return given._replace(length=row_lengths)
    positions, size = jnp.arange(longest), row_lengths[:, None]
    ending = (positions >= size - 1) & (size > 0)
    end_tokens = jnp.where(positions == size - 1, method.text_spec.eos, method.text_spec.pad)
    return given._replace(tokens=jnp.where(ending, end_tokens, given.tokens), fixed=given.fixed | ending)
