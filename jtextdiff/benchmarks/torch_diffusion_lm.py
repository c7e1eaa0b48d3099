"""The default Diffusion-LM in PyTorch, with the same parameters, for speed ratios.

Written in the usual PyTorch style: fused attention, fused AdamW, in-place means. It omits two features of the library:
given words, and the sampler's projection before the clamp. Imported only where it is timed.
"""

# pyright: reportMissingImports=false

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jtextdiff.data.batches import Batch
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.nets.transformer import Transformer
from jtextdiff.training.optimizer import Optimizer

Tree = dict[str, Any]


def supports(method: Any) -> bool:
    """Returns whether the peer implements this configuration: the default one, at any size."""
    return (
        isinstance(method, DiffusionLM)
        and (method.output, method.projections, method.schedule) == ("logits", "plain", "cosine")
        and method.per_token_times
        and (method.known_length, method.trunk.norm, method.trunk.time) == (True, "pre", "add")
        and (method.trunk.positions, method.trunk.causal) == ("learned+rotary", False)
        and (method.noisy_x_0, method.cross_entropy, method.sampler.name) == (False, 1.0, "ancestral")
        and method.embeddings in ("neighbours", "tuned")
        and method.embed_norm is not None
        and method.self_conditioning > 0
        and (method.trunk.dropout, method.mse, method.rounding, method.prior) == (0.0, 0.0, 0.0, 0.0)
    )


def tensors(params: Any) -> Tree:
    """Returns the parameters as PyTorch tensors, kernels transposed to [out, in]."""

    def convert(name: str, leaf: Any) -> Tensor:
        array = np.array(leaf)
        return torch.tensor(array.T.copy() if name == "kernel" else array)

    return {name: tensors(leaf) if isinstance(leaf, dict) else convert(name, leaf) for name, leaf in params.items()}


def leaves(tree: Tree) -> list[Tensor]:
    return [leaf for value in tree.values() for leaf in (leaves(value) if isinstance(value, dict) else [value])]


def linear(x: Tensor, layer: Tree) -> Tensor:
    return F.linear(x, layer["kernel"], layer["bias"])


def norm(x: Tensor, layer: Tree) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer["scale"], layer["bias"], 1e-6)


@functools.cache
def rotary_angles(length: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns cos and sin of the rotary angles, [length, width / 2]."""
    angles = torch.arange(length)[:, None] * 1000.0 ** (-torch.arange(width // 2) / (width // 2))
    return angles.cos(), angles.sin()


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def trunk(x: Tensor, t: Tensor, valid: Tensor, p: Tree, shape: Transformer) -> Tensor:
    half = shape.time_features // 2
    angles = t[..., None] * torch.exp(-math.log(1e4) * torch.arange(half) / half)
    features = linear(torch.cat([angles.cos(), angles.sin()], -1), p["time"]["up"])
    x = x + p["positions"]["embedding"][: x.shape[1]] + linear(F.silu(features), p["time"]["down"])
    rotation = rotary_angles(x.shape[1], shape.width // shape.num_heads)
    for block in p["blocks"].values():
        inner, attention = norm(x, block["norm_attention"]), block["attention"]
        query, key, value = (
            split_heads(linear(inner, attention[name]), shape.num_heads) for name in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(
            rotary(query, *rotation), rotary(key, *rotation), value, attn_mask=valid[:, None, None, :]
        )
        x = x + linear(mixed.transpose(1, 2).flatten(2), attention["out"])
        x = x + linear(F.gelu(linear(norm(x, block["norm_mlp"]), block["mlp"]["up"])), block["mlp"]["down"])
    return norm(x, p["norm"])


def noise_levels(method: DiffusionLM, t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (√ᾱ, √(1 − ᾱ)) of the cosine schedule, without the clipping of its last step."""
    quarter = math.pi / 2 / 1.008
    alpha_bar = ((t + 0.008) * quarter).cos() ** 2 / math.cos(0.008 * quarter) ** 2
    alpha_bar = alpha_bar.clamp(2e-7, 1 - 1e-6)
    return alpha_bar.sqrt()[..., None], (1 - alpha_bar).sqrt()[..., None]


def embedding_table(p: Tree, method: DiffusionLM) -> Tensor:
    return (method.embed_norm or 1.0) * F.normalize(p["embedding"], dim=-1)


def logits(p: Tree, method: DiffusionLM, x_t: Tensor, t: Tensor, previous: Tensor, valid: Tensor) -> Tensor:
    """Returns the logits over words."""
    spread = (method.embed_norm or 1.0) / method.embed_dim**0.5
    signal, noise = noise_levels(method, t)
    signal = spread * signal
    x = linear(torch.cat([x_t * signal / (signal**2 + noise**2), previous / spread], -1), p["read"])
    x = x + p["length"]["embedding"][valid.sum(-1)][:, None]
    return linear(trunk(x, 1000 * (t - 1 / method.num_steps), valid, p["trunk"], method.trunk), p["answer"])


def estimate(p: Tree, method: DiffusionLM, *inputs: Tensor, temperature: float = 1.0, mask: Any = 0.0) -> Tensor:
    return (logits(p, method, *inputs) / temperature + mask).softmax(-1) @ embedding_table(p, method)


def loss_of(
    p: Tree, method: DiffusionLM, tokens: Tensor, valid: Tensor, t: Tensor, eps: Tensor, two_passes: bool
) -> Tensor:
    """Returns the cross-entropy for given times and noise; `two_passes`: with self-conditioning on a first estimate."""
    signal, noise = noise_levels(method, t)
    x_t = signal * embedding_table(p, method)[tokens] + noise * eps
    previous = torch.zeros_like(x_t)
    if two_passes:
        with torch.no_grad():
            previous = estimate(p, method, x_t, t, previous, valid)
    losses = F.cross_entropy(
        logits(p, method, x_t, t, previous, valid).flatten(0, 1), tokens.flatten(), reduction="none"
    )
    return ((losses.view_as(tokens) * valid).sum(-1) / valid.sum(-1)).mean()


def trainer(params: Any, method: DiffusionLM, optim: Optimizer, *, compiled: bool) -> Callable[[Batch, bool], Tensor]:
    """Returns a training step on a batch, in one or two passes: loss, gradient, clipping, AdamW, running mean."""
    p = tensors(params)
    trains_embedding = method.embeddings == "tuned"
    weights = [leaf.requires_grad_() for leaf in leaves(p) if trains_embedding or leaf is not p["embedding"]]
    means = [leaf.detach().clone() for leaf in weights]
    adam = torch.optim.AdamW(
        weights, optim.peak, (optim.b1, optim.b2), optim.eps, weight_decay=optim.weight_decay, fused=True
    )
    loss = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def step(batch: Batch, two_passes: bool) -> Tensor:
        tokens, valid = torch.as_tensor(batch.tokens).long(), torch.as_tensor(batch.valid)
        t = torch.ceil(torch.rand(tokens.shape) * method.num_steps).clamp(min=1) / method.num_steps
        eps = torch.randn(*tokens.shape, method.embed_dim)
        adam.zero_grad()
        value = loss(p, method, tokens, valid, t, eps, two_passes)
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, optim.clip or math.inf)
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(means, weights, 1 - optim.ema)
        return value.detach()

    return step


def sampler(params: Any, method: DiffusionLM, num: int, *, compiled: bool) -> Callable[[], Tensor]:
    """Returns a call that samples `num` texts of full length in the ancestral steps of the method's sampler."""
    p, steps = tensors(params), method.sampler.steps
    denoise = torch.compile(estimate, dynamic=False) if compiled else estimate
    valid = torch.ones(num, method.text_spec.length, dtype=torch.bool)
    mask = torch.zeros(method.text_spec.length, method.text_spec.vocab_size)
    mask[:, [token for token in (method.text_spec.pad, method.text_spec.unk) if token >= 0]] = -math.inf
    mask[:, method.text_spec.eos] = -math.inf
    mask[-1] = torch.where(torch.arange(mask.shape[1]) == method.text_spec.eos, 0.0, -math.inf)

    @torch.no_grad()
    def sample() -> Tensor:
        x = torch.randn(num, method.text_spec.length, method.embed_dim)
        x_0 = torch.zeros_like(x)
        for i in range(steps, 0, -1):
            t, s = (torch.full(valid.shape, index / steps) for index in (i, i - 1))
            x_0 = denoise(p, method, x, t, x_0, valid, temperature=method.sampler.temperature, mask=mask)
            if i <= steps * method.sampler.clamp:
                vectors = embedding_table(p, method)
                x_0 = vectors[(x_0 @ vectors.T).argmax(-1)]  # all have the same norm
            (signal_t, noise_t), (signal_s, noise_s) = noise_levels(method, t), noise_levels(method, s)
            beta = 1 - (signal_t / signal_s) ** 2
            mean = signal_s * beta / noise_t**2 * x_0 + signal_t / signal_s * noise_s**2 / noise_t**2 * x
            x = mean + beta.sqrt() * noise_s / noise_t * torch.randn_like(x) if i > 1 else x_0
        return (x @ embedding_table(p, method).T).argmax(-1)

    return sample
