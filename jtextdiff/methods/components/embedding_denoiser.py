"""Belief: what a network says of noisy words, and the estimate of the clean ones that lies in it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion import bounds
from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.parameterization import TO_X_0
from jtextdiff.diffusion.schedules import Time
from jtextdiff.sampling import denoiser_transforms as transforms
from jtextdiff.sampling.loop import Denoise


class Belief(NamedTuple):
    """An EmbeddingDenoiser over its parameters, and how it is asked."""

    net: Any
    process: Gaussian
    readable: Callable[[Array, Time], Array]  # x_t as the network is shown it
    first: float  # the first time of training, which the network is told as 0
    reading: str | None  # what a vector answer predicts; None: answers are logits over words
    self_conditioned: bool

    def answer(
        self, x_t: Float[Array, "b l d"], t: Array, previous: Array | None, valid: Bool[Array, "b l"], key: Any
    ) -> Float[Array, "b l k"]:
        """What the network says of x_t at times [b #l]."""
        previous = None if previous is None else self.readable(previous, 0.0)
        return self.net(self.readable(x_t, t), 1000.0 * (t - self.first), previous, valid=valid, key=key)

    def x_0_hat(self, answer: Float[Array, "b l k"], x_t: Float[Array, "b l d"], t: Time) -> Float[Array, "b l d"]:
        """The estimate in an answer: the expected word vector, or the vector as `reading` says."""
        if self.reading is None:
            return jax.nn.softmax(answer) @ self.net.table()
        return TO_X_0[self.reading](self.process, answer, x_t, t)

    def glance(self, x_t: Float[Array, "b l d"], t: Array, valid: Bool[Array, "b l"]) -> Array | None:
        """A first x̂_0 for the network to see; None if it is not self-conditioned."""
        first = lambda: self.x_0_hat(self.answer(x_t, t, None, valid, None), x_t, t)
        return first() if self.self_conditioned else None

    def denoise(
        self,
        words: Float[Array, "b l d"],
        clear: Bool[Array, "b l"] | None,
        valid: Bool[Array, "b l"],
        possible: Bool[Array, "b l v"],
        temperature: float,
    ) -> Denoise:
        """The network as a Denoise: tempered and turned into a vector; where `clear` it is shown `words`, as clean."""

        def answer(x_t: Array, t: Time, previous: Array) -> Array:
            seen = x_t if clear is None else jnp.where(clear[..., None], words, x_t)
            when = jnp.full((len(x_t), 1), t) if clear is None else jnp.where(clear, self.first, t)
            said = self.answer(seen, when, previous, valid, None)
            return jnp.where(possible, said, -jnp.inf) if self.reading is None else said

        spoken = transforms.temper(answer, temperature) if self.reading is None else answer
        return lambda x_t, t, previous: self.x_0_hat(spoken(x_t, t, previous), x_t, t)

    def gaps(
        self,
        key: Key[Array, ""],
        tokens: Int[Array, "b l"],
        valid: Bool[Array, "b l"],
        *,
        begin: float,
        points: int,
        released: bool,
    ) -> Float[Array, "b l"]:
        """Nats of each word: `bounds.continuous_bound` of its vector, and E[−log p(w | x_t)] at its first time `begin`.

        Or what the release reports instead. Without clamp; self-conditioning by two passes, which keeps each term a
        function of x_t alone.
        """
        word, first, (walk, last) = self.net.embed(tokens), jnp.full((len(tokens), 1), begin), jax.random.split(key)
        answer = lambda x_t, t: self.answer(x_t, t, self.glance(x_t, t, valid), valid, None)
        denoise = lambda x_t, t: self.x_0_hat(answer(x_t, t), x_t, t)
        estimate = self.process, word, denoise, walk, begin, points
        if released:
            gap, x_0 = bounds.released_bound(*estimate)
            logits = self.net.rounding_logits(x_0)
        else:
            gap, x_t = bounds.continuous_bound(*estimate), self.process.marginal(word, first).sample(last)
            logits = answer(x_t, first) if self.reading is None else self.net.rounding_logits(denoise(x_t, first))
        return gap + objectives.cross_entropy(logits, tokens)
