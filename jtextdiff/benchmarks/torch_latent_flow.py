"""The latent ODE by torchdiffeq, as in LatentOps, for speed ratios.

It follows the same energy from the same latents. Imported only where it is timed.
"""

# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchdiffeq import odeint

from jtextdiff.sampling.energies import Learned, Sum
from jtextdiff.sampling.latent_flow import TOLERANCE


def flow(
    energy: Sum, z: Float[np.ndarray, "b z"], max_time: float, tolerance: float = TOLERANCE
) -> Callable[[], Tensor]:
    """Returns a call that integrates dz/dτ = −∇E up to τ = `max_time`, all rows with the same steps.

    The solver is Dormand–Prince 5(4). Raises ValueError unless all parts of the energy are latent classifiers.
    """
    if not all(isinstance(part, Learned) and _is_classifier(part) for part in energy.energies):
        raise ValueError("The torchdiffeq flow supports only controls learned from labels.")
    energies = [_energy(part) for part in energy.energies]
    weights, start = [float(weight) for weight in energy.weights], torch.tensor(np.asarray(z))

    def downhill(time: Tensor, z: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            parts = [weight * part(z).sum() for weight, part in zip(weights, energies, strict=True)]
            return -torch.autograd.grad(torch.stack(parts).sum(), z)[0]

    times = torch.tensor([0.0, max_time])
    return lambda: odeint(downhill, start, times, method="dopri5", rtol=tolerance, atol=tolerance)[-1]  # pyright: ignore


def _is_classifier(energy: Learned) -> bool:
    return isinstance(energy.params, dict) and set(energy.params) == {"net", "temperature"}


def _energy(energy: Any) -> Callable[[Tensor], Tensor]:
    """Returns −log p of the target's values, from the mean of the ensemble members' probabilities."""
    layers = {
        name: (torch.tensor(np.asarray(layer["kernel"])), torch.tensor(np.asarray(layer["bias"]))[:, None])
        for name, layer in energy.params["net"].items()
    }
    temperature, target = float(energy.params["temperature"]), torch.tensor(np.asarray(energy.target))

    def nats(z: Tensor) -> Tensor:
        hidden = z.expand(len(layers["answer"][0]), *z.shape)
        if "lift" in layers:
            kernel, bias = layers["lift"]
            hidden = torch.tanh(hidden @ kernel + bias)
        kernel, bias = layers["answer"]
        log_p = torch.log_softmax((hidden @ kernel + bias) / temperature, dim=-1)
        return -(torch.logsumexp(log_p[..., target], dim=(0, -1)) - np.log(len(kernel)))

    return nats
