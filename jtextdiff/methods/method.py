"""What a method promises: parameters, a loss, samples and a likelihood; and what it is told of the language."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.core.randomness import Keys
from jtextdiff.methods.noisy_words import NoisyWords
from jtextdiff.nets.functional import Params
from jtextdiff.text.batches import Batch

Metrics = dict[str, Float[Array, "b"]]
"""Named numbers, one an example; they are averaged where they are reported."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """What a method must know of the corpus; filled in when a run is prepared, never typed by hand."""

    vocab_size: int = 0  # ids that can be written
    mask: int = 0
    pad: int = 0
    eos: int = 0
    unk: int = -1  # stands for every unknown word, and so is never written; −1: there is none
    length: int = 0  # positions of the longest sequence, EOS counted
    length_counts: tuple[int, ...] = ()  # training sequences of each length, 0 … length

    @property
    def mean_length(self) -> float:
        """Tokens of a training sequence, in the mean."""
        return sum(n * count for n, count in enumerate(self.length_counts)) / sum(self.length_counts)


class Given(NamedTuple):
    """What is asked of a sample: words that stay, and how long the sequence is."""

    tokens: Int[Array, "b l"]
    fixed: Bool[Array, "b l"]  # True: this token stays
    length: Int[Array, "b"]  # tokens, EOS counted; 0: drawn by the method; −n: likewise, but n at least
    label: Int[Array, "b"] | None = None  # of its condition, the number of the value from 1; 0: none is told


class Sample(NamedTuple):
    """Tokens, PAD after the end; if it was asked for, the states on the way [steps + 1, b, l] as tokens; the network
    calls that each row has needed; and, of a path that followed an energy, its parts at each state, in nats."""

    tokens: Int[Array, "b l"]
    path: Any
    calls: Int[Array, "b"]
    energies: Float[Array, "steps+1 b parts"] | None = None


def nothing_given(num: int, length: int) -> Given:
    """Nothing fixed, lengths free: `num` unconditional samples of at most `length` tokens."""
    shape = (num, length)
    return Given(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(num, jnp.int32))


def span(given: Given, length: Int[Array, "b"]) -> tuple[Bool[Array, "b l"], Bool[Array, "b l"]]:
    """The positions of texts of these lengths, and where they end."""
    valid = jnp.arange(given.tokens.shape[1]) < length[:, None]
    return valid, valid & ~jnp.pad(valid[:, 1:], ((0, 0), (0, 1)))


def possible_words(
    language: Language, given: Given, ends: Bool[Array, "b l"] | None, *, with_pad: bool
) -> Bool[Array, "b l v"]:
    """The words that each position may take: the given one; else any but UNK and MASK, and PAD only `with_pad`.

    Where it is known which positions are the `ends` of texts, EOS stands there and nowhere else.
    """
    words = jnp.arange(language.vocab_size)
    is_eos = words == language.eos
    free = (words != language.unk) & (words != language.mask) & (is_eos | (words != language.pad) | with_pad)
    if ends is not None:
        free = free & (ends[..., None] == is_eos)
    return jnp.where(given.fixed[..., None], words == given.tokens[..., None], free)


def check_settings(method: Any, *, positive: tuple[str, ...], choices: dict[str, tuple[str, ...]]) -> None:
    """Raises ValueError naming a field that must be at least 1 and is not, or is none of its choices."""
    for field in positive:
        if getattr(method, field) < 1:
            raise ValueError(f"{field} must be at least 1, got {getattr(method, field)}.")
    for field, names in choices.items():
        if getattr(method, field) not in names:
            raise ValueError(f"{field} must be one of {names}, got {getattr(method, field)!r}.")


def check_numbers(method: Any, weights: tuple[str, ...], shares: tuple[str, ...]) -> None:
    """Raises ValueError naming a field that is no weight, of at least 0, or no share, also below 1."""
    for field in (*weights, *shares):
        value, most = getattr(method, field), 1.0 if field in shares else float("inf")
        if not 0 <= value < most:
            raise ValueError(f"{field} must be at least 0{' and below 1' if field in shares else ''}, got {value}.")


@runtime_checkable
class Trainable(Protocol):
    """A frozen dataclass that joins the mathematics to a network. Its field `language` is a Language."""

    @property
    def language(self) -> Language: ...

    def init(self, key: Key[Array, ""]) -> Params: ...

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """One number an example to descend on, and its terms."""
        ...


@runtime_checkable
class Method(Trainable, Protocol):
    """What writes texts, and knows how likely one is."""

    @property
    def sampler(self) -> Any:
        """How samples are drawn: a dataclass with a `name`."""
        ...

    @property
    def bound(self) -> str:
        """What `nll` is: "exact", or the name of the bound."""
        ...

    @property
    def prefix_only(self) -> bool:
        """Whether fixed words can only stand at the start."""
        ...

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """One sample a row; `keys` is [b], and a row depends on its own key and its own `given` only."""
        ...

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Negative log-likelihood of each sequence in nats, its length or EOS included; exact or a bound."""
        ...


@runtime_checkable
class Primed(Protocol):
    """A method that reads some of its first parameters off the training text."""

    def prime(self, params: Params, tokens: np.ndarray, offsets: np.ndarray) -> Params:
        """Fresh parameters with those that the text gives; text n is `tokens[offsets[n] : offsets[n + 1]]`."""
        ...


@runtime_checkable
class Guidable(Protocol):
    """A method whose samples are vectors on the way, which a classifier can read and an energy can move."""

    @property
    def states(self) -> NoisyWords:
        """What these vectors are."""
        ...


@runtime_checkable
class Latent(Protocol):
    """A method for which a text is one latent, which controls move: to write a text, or to write one anew."""

    @property
    def latent_dim(self) -> int: ...

    def encode(self, params: Params, tokens: Any, valid: Any) -> Float[Array, "b z"]:
        """Where texts lie, in coordinates in which latents are N(0, I)."""
        ...

    def reread(self, params: Params, tokens: Any, *, energy: Any) -> Float[Array, "b parts"]:
        """What an energy's parts say of finished texts, in nats."""
        ...

    def mentioning(self, params: Params, allowed: Bool[Array, "k v"]) -> Any:
        """The energy of words that a text is to have, each one of those that its place allows."""
        ...

    def rewrite(self, params: Params, keys: Keys, given: Given, *, energy: Any, length: Any, **flow: Any) -> Any:
        """The texts `given`, written anew from where the energy has taken them: a `latents.Rewrite`."""
        ...


@runtime_checkable
class Editable(Protocol):
    """A method that can rewrite a text."""

    def edit(
        self,
        params: Params,
        keys: Keys,
        given: Given,
        *,
        strength: Float[Array, ""] | float,
        energy: Any = None,
        keep_path: bool = False,
    ) -> Sample:
        """One rewrite a row of the texts `given`, the further from them the nearer `strength` in (0, 1] is to 1."""
        ...


@runtime_checkable
class Measured(Protocol):
    """A method that draws the length of a text before its words, so that short ones need not be padded far."""

    def lengths(self, params: Params, keys: Keys, given: Given) -> Int[Array, "b"]:
        """The length that `sample` takes for each row: the one asked for, or one drawn."""
        ...


@runtime_checkable
class Featured(Protocol):
    """A method that can say what it makes of a text, as a vector."""

    def features(self, params: Params, batch: Batch) -> Float[Array, "b w"]: ...


@runtime_checkable
class Lawful(Protocol):
    """A method that knows which law its sampler draws a word from."""

    def law(self, params: Params, given: Given) -> Float[Array, "b v"] | None:
        """log p of the first word that is not given, the only one or, from left to right, the next; None: not known."""
        ...


@runtime_checkable
class Rechecked(Protocol):
    """A method that can find its likelihood in a second way."""

    @property
    def bound_again(self) -> str:
        """What the second way is."""
        ...

    def nll_again(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """The same as `nll`, in the mean; the very same, if that is exact."""
        ...


@runtime_checkable
class Monitored(Protocol):
    """A method that has something to watch beside its loss, such as the health of its embeddings."""

    def monitor(self, params: Params) -> dict[str, Float[Array, ""]]: ...
