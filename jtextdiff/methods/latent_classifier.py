"""Latent classifiers: controls of a text VAE, small networks that read where a text lies in latent space."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion.schedules import Time
from jtextdiff.methods.components.types import Language, check_numbers, check_settings
from jtextdiff.methods.method import Latent
from jtextdiff.nets.classifiers import LatentHead
from jtextdiff.nets.functional import Net, Params
from jtextdiff.sampling.energies import Learned


@dataclass(frozen=True, kw_only=True)
class LatentClassifier:
    """p(value of a label | ε): the mean of what its members say, of latents whose initial law is N(0, I)."""

    language: Language = Language()
    base: Any = None  # the method that is controlled; filled in from its run
    label: str = ""
    values: tuple[str, ...] = ()  # filled in from the text
    width: int = 64  # of the one hidden layer; 0: none, log p is linear before it is normalised
    members: int = 3  # each learns from all of the texts but its own share of them
    samples: int = 4  # latents of a text that it is learned from, drawn from q(z | text)
    penalties: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of weights squared, beside the summed log-loss
    rounds: int = 100  # of the optimiser
    most: int = 20_000  # texts that it is learned from, evenly taken
    weight: float = 1.0  # what its energy counts beside others, times what a control itself says

    def __post_init__(self) -> None:
        check_settings(self, positive=("samples", "rounds", "most"), choices={})
        if self.members < 2:
            raise ValueError(f"members must be at least 2: each is tried on what it has not seen. Got {self.members}.")
        if not self.penalties or min(self.penalties) < 0:
            raise ValueError(f"penalties must be numbers of at least 0, got {self.penalties}.")
        check_numbers(self, ("weight",), shares=())
        if self.base is not None and not isinstance(self.base, Latent):
            raise ValueError(f"{type(self.base).__name__} has no latent to classify: control TextVAE.")

    @property
    def kind(self) -> str:
        """What has a value: see methods/classifier."""
        return "text"

    @functools.cached_property
    def net(self) -> Net:
        return Net(
            lambda rngs: LatentHead(
                dim=self.base.latent_dim, width=self.width, num_answers=max(len(self.values), 1), rngs=rngs
            )
        )

    def init(self, key: Key[Array, ""]) -> Params:
        """`net`, of every member, their `temperature`, and as `frozen` the base's initial law, by which it is known."""
        own, of_base = jax.random.split(key)
        return {
            "net": jax.vmap(self.net.init)(jax.random.split(own, self.members)),
            "temperature": jnp.ones(()),
            "frozen": {"law": self.base.init(of_base)["law"]},
        }

    def logits(self, net: Params, epsilon: Float[Array, "b z"]) -> Float[Array, "m b c"]:
        """What each member answers."""
        return jax.vmap(lambda member: self.net.bind(member)(epsilon))(net)

    def log_p(self, params: Params, epsilon: Float[Array, "b z"]) -> Float[Array, "b c"]:
        """log p of every value: of the members' mean probability."""
        each = jax.nn.log_softmax(self.logits(params["net"], epsilon) / params["temperature"])
        return jax.nn.logsumexp(each, axis=0) - jnp.log(self.members)

    def wanting(self, params: Params, target: Bool[np.ndarray, "c"]) -> Learned:
        """The energy −log p(one of the target's values | ε), nats a text."""
        own = {name: params[name] for name in ("net", "temperature")}
        return Learned(params=own, target=jnp.asarray(target), log_prob=self.log_prob)

    def log_prob(
        self, params: Params, target: Bool[Array, "*b c"], epsilon: Float[Array, "b z"], t: Time, valid: Any
    ) -> Float[Array, "b"]:
        """log p(one of the `target` values | ε), whatever the time and the lengths."""
        return jax.nn.logsumexp(jnp.where(target, self.log_p(params, epsilon), -jnp.inf), axis=-1)


def log_loss(log_p: Float[Array, "s n c"], value: Int[Array, "n"]) -> Float[Array, "s n"]:
    """−log p of the value that each text has, by each of its samples, nats."""
    return -jnp.take_along_axis(log_p, jnp.broadcast_to(value, log_p.shape[:2])[..., None], axis=-1)[..., 0]
