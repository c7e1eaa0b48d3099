"""The peer's ODE: latents taken downhill in the same energy by torchdiffeq, as LatentOps has it, for an honest ratio.

Imported only where it is timed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchdiffeq import odeint

from jtextdiff.sampling.energies import Learned, Sum
from jtextdiff.sampling.latent_flow import TOLERANCE


def flow(energy: Sum, z: Float[np.ndarray, "b z"], tau: float, tolerance: float = TOLERANCE) -> Callable[[], Tensor]:
    """A call that follows dz/dτ = −∇E for the time `tau`, all rows with the same steps (Dormand–Prince 5(4)).

    Raises ValueError for an energy that is not of latent classifiers alone.
    """
    if not all(isinstance(one, Learned) and _of_classifier(one) for one in energy.energies):
        raise ValueError("torchdiffeq's flow is written for controls that were learned from labels alone.")
    energies = [_energy(one) for one in energy.energies]
    weights, start = [float(weight) for weight in energy.weights], torch.tensor(np.asarray(z))

    def downhill(time: Tensor, z: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            each = [weight * one(z).sum() for weight, one in zip(weights, energies, strict=True)]
            return -torch.autograd.grad(torch.stack(each).sum(), z)[0]

    times = torch.tensor([0.0, tau])
    return lambda: odeint(downhill, start, times, method="dopri5", rtol=tolerance, atol=tolerance)[-1]  # pyright: ignore


def _of_classifier(one: Learned) -> bool:
    return isinstance(one.params, dict) and set(one.params) == {"net", "temperature"}


def _energy(one: Any) -> Callable[[Tensor], Tensor]:
    """−log p of the target's values, by the mean of the members' probabilities."""
    layers = {
        name: (torch.tensor(np.asarray(layer["kernel"])), torch.tensor(np.asarray(layer["bias"]))[:, None])
        for name, layer in one.params["net"].items()
    }
    temperature, target = float(one.params["temperature"]), torch.tensor(np.asarray(one.target))

    def nats(z: Tensor) -> Tensor:
        hidden = z.expand(len(layers["answer"][0]), *z.shape)
        if "lift" in layers:
            kernel, bias = layers["lift"]
            hidden = torch.tanh(hidden @ kernel + bias)
        kernel, bias = layers["answer"]
        log_p = torch.log_softmax((hidden @ kernel + bias) / temperature, dim=-1)
        return -(torch.logsumexp(log_p[..., target], dim=(0, -1)) - np.log(len(kernel)))

    return nats
