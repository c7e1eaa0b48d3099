"""Templates and texts, as what is given to a method: words that stay, [MASK] for those to be written, and lengths."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from jtextdiff.cli.errors import UserError
from jtextdiff.data.batches import Batch
from jtextdiff.data.tokenizer import MASK, Tokenizer
from jtextdiff.methods.components.types import Given, Language, nothing_given
from jtextdiff.methods.method import Method


def read_template(template: str | Sequence[str] | None, tokenizer: Tokenizer, method: Method, num: int) -> Given:
    """What a template fixes, for `num` rows, or each row's own; nothing, without one. Raises UserError for a bad."""
    length = method.language.length
    if template is None:
        return nothing_given(num, length)
    if not isinstance(template, str):
        rows = [read_template(each, tokenizer, method, 1) for each in template]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)
    ids, fixed = tokenizer.encode_template(template)
    if fixed.all():
        raise UserError(f"The template {template!r} leaves nothing to write. Put {MASK} for each word to write.")
    if len(ids) + 1 > length:
        raise UserError(f"The template has {len(ids) + 1} tokens (its end counted); this model writes {length}.")
    if tokenizer.unk is not None and (ids[fixed] == tokenizer.unk).any():
        raise UserError(
            f"The template holds words that the model does not know: {tokenizer.decode(ids)!r}. "
            "A fixed word must be one of its vocabulary."
        )
    if method.prefix_only and fixed[np.argmin(fixed) :].any():
        raise UserError(
            f"{type(method).__name__} writes from left to right: fixed words can only stand at the start. "
            "Use a diffusion model to fill a gap."
        )
    return _rows(ids, fixed, method, num)


def _rows(ids: Int[np.ndarray, "m"], fixed: Bool[np.ndarray, "m"], method: Method, num: int) -> Given:
    """A template, with its EOS, as a Given of `num` equal rows."""
    language, size = method.language, len(ids) + 1
    tokens = np.full((num, language.length), language.pad, np.int32)
    held = np.zeros((num, language.length), bool)
    tokens[:, : size - 1] = np.where(fixed, ids, language.pad)
    tokens[:, size - 1] = language.eos
    held[:, : size - 1] = fixed
    held[:, size - 1] = not method.prefix_only
    return Given(jnp.asarray(tokens), jnp.asarray(held), jnp.full(num, size, jnp.int32))


def read_texts(texts: Sequence[str], tokenizer: Tokenizer, language: Language) -> Batch:
    """Texts as ids, EOS after each, PAD after that. Raises UserError for one that is too long for the language."""
    rows = tokenizer.encode(list(texts))
    tokens = np.full((len(rows), language.length), language.pad, np.int32)
    valid = np.zeros(tokens.shape, bool)
    for i, row in enumerate(rows):
        if len(row) + 1 > language.length:
            raise UserError(
                f"A text of {len(row) + 1} tokens (its end counted) is longer than the {language.length} that this "
                f"model was made for: {tokenizer.decode(row)[:60]!r}…"
            )
        tokens[i, : len(row) + 1] = [*row, language.eos]
        valid[i, : len(row) + 1] = True
    return Batch(tokens, valid, np.zeros_like(valid), {})


def with_lengths(given: Given, lengths: Sequence[int], method: Method) -> Given:
    """The lengths that are asked for, as `Given` has them, one of all rows or one of each.

    A method for which PAD is a word like any other has no lengths to be given: its EOS and PAD are held as words.
    """
    num, longest = given.tokens.shape
    asked = jnp.broadcast_to(jnp.asarray(lengths, jnp.int32), (num,))
    if getattr(method, "known_length", True):
        return given._replace(length=asked)
    place, size = jnp.arange(longest), asked[:, None]
    after = (place >= size - 1) & (size > 0)
    ended = jnp.where(place == size - 1, method.language.eos, method.language.pad)
    return given._replace(tokens=jnp.where(after, ended, given.tokens), fixed=given.fixed | after)
