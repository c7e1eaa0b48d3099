"""Protocols of methods: parameters, loss, sampling, likelihood."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.methods.components.latent_levels import Levels
from jtextdiff.methods.components.latents import LabelledLatents, Rewrite
from jtextdiff.methods.components.noisy_embeddings import NoisyEmbeddings
from jtextdiff.methods.components.types import Given, Metrics, Sample, TextSpec
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.energies import Energy


@runtime_checkable
class Trainable(Protocol):
    """A frozen dataclass that combines a loss with a network. Its field `text_spec` is a TextSpec."""

    @property
    def text_spec(self) -> TextSpec: ...

    def init(self, key: Key[Array, ""]) -> Params: ...

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Returns the loss of each example and its terms."""
        ...


@runtime_checkable
class Method(Trainable, Protocol):
    """A generative model of texts: it draws samples and scores texts."""

    @property
    def sampler(self) -> Any:
        """The settings of sampling: a dataclass with a `name`."""
        ...

    @property
    def bound(self) -> str:
        """What `nll` returns: "exact", or the name of the bound."""
        ...

    @property
    def prefix_only(self) -> bool:
        """Returns whether fixed tokens must form a prefix."""
        ...

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Draws one sample a row. `keys` is [b]; a row depends only on its own key and its own `given`."""
        ...

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns −log p of each sequence in nats, its length or EOS included; exact or an upper bound."""
        ...


@runtime_checkable
class InitFromData(Protocol):
    """A method that computes some of its initial parameters from the training text."""

    def init_from_data(self, params: Params, tokens: np.ndarray, offsets: np.ndarray) -> Params:
        """Returns `params` with those entries set; text n is `tokens[offsets[n] : offsets[n + 1]]`."""
        ...


@runtime_checkable
class HasContinuationLikelihood(Protocol):
    """A method with the likelihood of some tokens of a text, given others."""

    def continuation_nll(self, params: Params, key: Any, batch: Batch, scored: Bool[Array, "b l"]) -> Array:
        """Returns −log p(the tokens that are scored | the tokens before them, or all others), nats [b]."""
        ...


@runtime_checkable
class Controllable(Protocol):
    """A method whose sampling can follow an energy of a continuous state."""

    def clean_state(self, params: Params, batch: Batch) -> tuple[Float[Array, "b *shape"], Bool[Array, "b l"] | None]:
        """Returns the noise-free states of finished texts, and their valid positions if a state has positions."""
        ...

    def keyword_energy(self, params: Params, allowed: Bool[Array, "k v"]) -> Energy:
        """Returns the energy −log p(the text contains k tokens), the i-th one of `allowed[i]`.

        DiffusionLM requires them side by side; TextVAE accepts any order.
        """
        ...


@runtime_checkable
class WordGuided(Protocol):
    """A method that samples tokens from predictions which an energy of words shifts; see `phrases.token_bias`."""

    @property
    def guided_by_words(self) -> bool:
        """Whether it is so with its settings."""
        ...


def is_guided_by_words(method: Any) -> bool:
    """Returns whether controls of words guide a method."""
    return isinstance(method, WordGuided) and method.guided_by_words


@runtime_checkable
class HasNoisyEmbeddings(Protocol):
    """A method whose states are noised token embeddings, on which a classifier can be trained."""

    @property
    def states(self) -> NoisyEmbeddings: ...


@runtime_checkable
class Conditional(Protocol):
    """A method trained on the value of a label, which a sample may then be conditioned on."""

    @property
    def condition(self) -> str:
        """The name of the label; "" if the method is unconditional."""
        ...

    @property
    def values(self) -> tuple[str, ...]: ...


@runtime_checkable
class Fitted(Protocol):
    """A control, or a field, that is fitted to labelled latents in one call, without training steps."""

    @property
    def label(self) -> str: ...
    @property
    def values(self) -> tuple[str, ...]: ...
    @property
    def samples(self) -> int: ...
    @property
    def max_texts(self) -> int: ...

    def fit_latents(self, key: Key[Array, ""], base: Params, texts: LabelledLatents) -> tuple[Params, dict[str, float]]:
        """Returns the parameters and their metrics on left-out texts, `loss` among them; `base` are the base's."""
        ...

    def report(self, params: Params, texts: LabelledLatents) -> dict[str, float]:
        """Returns metrics on texts that were not fitted to; the base's parameters are in `params` as `base`."""
        ...

    def describe(self, metrics: dict[str, float], num_valid: int) -> list[str]:
        """Returns the metrics in sentences. Of latents `text_accuracy`, of n-grams of the same texts, is one."""
        ...


@runtime_checkable
class LatentVariableModel(Protocol):
    """A method with one latent vector per text, in which controls act."""

    @property
    def latent_dim(self) -> int: ...
    @property
    def levels(self) -> Levels: ...

    def encode(self, params: Params, tokens: Any, valid: Any) -> Float[Array, "b z"]:
        """Returns the latents of texts, in coordinates in which the prior is N(0, I)."""
        ...

    def latent_samples(self, params: Params, tokens: Any, valid: Any, noise: Float[Array, "b s z"]) -> Any:
        """Returns samples of each text's latent, [b, s, z], its mean, and its KL from N(0, I) in nats."""
        ...

    def reread(self, params: Params, tokens: Any, *, energy: Any) -> tuple[Float[Array, "b parts"], Float[Array, "b"]]:
        """Returns the parts of an energy at the latents of finished texts, and −ELBO of the texts, in nats."""
        ...

    def word_params(self, params: Params) -> Params:
        """Returns the parameters that `word_presence` needs."""
        ...

    def word_presence(self, params: Params, epsilon: Float[Array, "b z"]) -> Float[Array, "b v"]:
        """Returns p(the token occurs in the text | its latent) of every token."""
        ...

    def word_vectors(self, params: Params) -> Float[Array, "v d"]:
        """Returns a vector of length 1 for each token, in the direction of those that stand in the same places."""
        ...

    def rewrite(self, params: Params, keys: Keys, given: Given, *, energy: Any, limits: Any, length: Any) -> Rewrite:
        """Moves the latents of the texts `given` along the energy's flow and decodes them."""
        ...


@runtime_checkable
class Editable(Protocol):
    """A method that edits a text by partial noising and denoising."""

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
        """Returns one edit a row of the texts `given`; `strength` in (0, 1] is the time up to which they are noised."""
        ...


@runtime_checkable
class SamplesLength(Protocol):
    """A method that draws the length of a text before its tokens, so that short texts need little padding."""

    def sample_lengths(self, params: Params, keys: Keys, given: Given) -> Int[Array, "b"]:
        """Returns the length that `sample` uses for each row: the given one, or a drawn one."""
        ...


@runtime_checkable
class HasKnownLength(Protocol):
    """A method that either samples a text's length first, or models PAD like any other token."""

    @property
    def known_length(self) -> bool:
        """False: PAD is modelled, and every text fills the length."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A method that embeds a text as a vector."""

    def features(self, params: Params, batch: Batch) -> Float[Array, "b w"]: ...


@runtime_checkable
class HasTokenDistribution(Protocol):
    """A method that can compute the distribution from which its sampler draws a token."""

    def token_distribution(self, params: Params, given: Given) -> Float[Array, "b v"] | None:
        """Returns log p of the first token that is not given: the only one or, from left to right, the next.

        None where the sampler's distribution is not available.
        """
        ...


@runtime_checkable
class HasSecondLikelihood(Protocol):
    """A method that can compute its likelihood in a second way."""

    @property
    def bound_check(self) -> str:
        """How `nll_check` computes it."""
        ...

    def nll_check(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns the same as `nll`: equal in expectation, and exactly if `nll` is exact."""
        ...


@runtime_checkable
class HasOrderedLikelihood(Protocol):
    """A method with samplers that draw the tokens of a text in an order with an exact likelihood."""

    @property
    def sampler(self) -> Any:
        """The settings of sampling. Its `has_order` is whether the chosen sampler has such an order."""
        ...

    def nll_in_order(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns −log p of each sequence in nats, of drawing it in the order of the sampler at temperature 1."""
        ...


@runtime_checkable
class HasDiagnostics(Protocol):
    """A method with quantities to monitor besides its loss, such as the spread of its embeddings."""

    def diagnostics(self, params: Params) -> dict[str, Float[Array, ""]]: ...


@runtime_checkable
class SelfConditioned(Protocol):
    """A method whose network reads what it computed before, in a share of the training steps."""

    def two_passes(self, key: Key[Array, ""]) -> Bool[Array, ""]:
        """Returns whether the network is applied twice in the training step of this key."""
        ...


@runtime_checkable
class HasSteps(Protocol):
    """Settings of a sampler that takes a number of steps."""

    steps: int
    names: tuple[str, ...]  # the samplers that `name` chooses from
    uses_steps: bool  # whether the chosen one uses `steps`
