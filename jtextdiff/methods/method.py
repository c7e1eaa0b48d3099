"""What a method promises: parameters, a loss, samples and a likelihood; and what it is told of the language."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.methods.components.noisy_embeddings import NoisyWords
from jtextdiff.methods.components.types import Given, Language, Metrics, Sample
from jtextdiff.nets.functional import Params


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
