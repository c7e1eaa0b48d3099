"""GPT-2 by transformers, with random weights, for speed ratios."""

# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from jtextdiff.nets.transformer import Transformer


def generator(trunk: Transformer, vocab_size: int, num: int, length: int) -> Callable[[], Tensor]:
    """Returns a call that samples `num` texts of `length` tokens with a KV cache, in a network of the trunk's size."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=length + 1,
        n_embd=trunk.width,
        n_layer=trunk.num_layers,
        n_head=trunk.num_heads,
        n_inner=trunk.mlp_size,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    # Any: the type of `generate` depends on whether PyTorch is installed.
    model: Any = GPT2LMHeadModel(config).eval()
    start = torch.zeros(num, 1, dtype=torch.long)

    @torch.no_grad()
    def generate() -> Tensor:
        return model.generate(
            start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, max_new_tokens=length
        )

    return generate
