"""What runs of samples refuse: lengths that a method cannot have, and networks whose logits are NaN."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.cli.errors import UserError
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.sample_batches import check_lengths, run_batched
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.block_diffusion import BlockDiffusion
from jtextdiff.methods.cmlm import CMLM
from jtextdiff.methods.components.types import TextSpec, nothing_given
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.masked import Masked
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer

LENGTH = 6
TEXT_SPEC = TextSpec(vocab_size=9, mask=9, pad=0, eos=1, unk=2, length=LENGTH, length_counts=(0,) + (1,) * LENGTH)
TRUNK = Transformer(num_layers=1, width=8, num_heads=2, max_length=16)
CAUSAL = dataclasses.replace(TRUNK, causal=True)
METHODS: dict[str, Any] = {
    "masked": Masked(text_spec=TEXT_SPEC, trunk=TRUNK),
    "d3pm": D3PM(text_spec=TEXT_SPEC, trunk=TRUNK),
    "blocks": BlockDiffusion(text_spec=TEXT_SPEC, trunk=TRUNK, block_size=3),
    "cmlm": CMLM(text_spec=TEXT_SPEC, trunk=TRUNK),
    "autoregressive": Autoregressive(text_spec=TEXT_SPEC, trunk=CAUSAL),
    "diffusion_lm": DiffusionLM(text_spec=TEXT_SPEC, trunk=TRUNK, embed_dim=4, embeddings="learned"),
    "text_vae": TextVAE(text_spec=TEXT_SPEC, encoder=TRUNK, decoder=CAUSAL, latent_dim=4),
}
SAMPLERS = [
    *(("masked", name) for name in ("ancestral", "first_hitting", "confidence", "entropy_bounded")),
    *(("autoregressive", name) for name in ("sample", "greedy", "beam")),
    *(
        ("blocks", "entropy_bounded"),
        ("blocks", "remasking"),
        ("d3pm", ""),
        ("cmlm", ""),
        ("diffusion_lm", ""),
        ("text_vae", ""),
    ),
]
FAST_SAMPLERS = [("masked", "ancestral"), ("blocks", "remasking"), *SAMPLERS[4:7], *SAMPLERS[9:]]
"""One for each way of drawing tokens; tests of masked samplers hold the others to the same without a network."""


@pytest.mark.parametrize("case", slow_but(FAST_SAMPLERS, SAMPLERS), ids="-".join)
def test_logits_of_nan_are_no_text(case: tuple[str, str]) -> None:
    name, sampler = case
    method = METHODS[name]
    changes: dict[str, Any] = {"name": sampler} if sampler else {}
    changes |= {"beams": 2} if sampler == "beam" else {}
    changes |= {"steps": 3} if hasattr(method.sampler, "steps") else {}
    method = dataclasses.replace(method, sampler=dataclasses.replace(method.sampler, **changes))
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), method.init(jax.random.key(0)))
    keys, given = keys_for(jax.random.key(1), jnp.arange(2)), nothing_given(2, LENGTH)
    with pytest.raises(UserError, match="2 of 2 samples have tokens without a distribution: .* NaN"):
        run_batched(method, "sample", params, keys, given, [None])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("length", [-LENGTH - 1, -3, 0, LENGTH, LENGTH + 1])
def test_lengths_that_a_method_cannot_have_are_refused(name: str, length: int) -> None:
    given = nothing_given(3, LENGTH)._replace(length=jnp.asarray([0, length, 2]))
    if abs(length) > LENGTH:
        message = f"length of {length} is given; expected 1 to {LENGTH} tokens, EOS counted"
    elif length == -3 and name not in ("masked", "d3pm", "diffusion_lm"):
        message = f"at least 3 is given, but {type(METHODS[name]).__name__} draws no lengths"
    else:
        check_lengths(METHODS[name], given)
        return
    with pytest.raises(ValueError, match=message):
        run_batched(METHODS[name], "sample", {}, np.zeros(3), given, [None])


def test_a_model_of_pad_has_no_least_length() -> None:
    padded = dataclasses.replace(METHODS["diffusion_lm"], known_length=False)
    with pytest.raises(ValueError, match="at least 3"):
        check_lengths(padded, nothing_given(1, LENGTH)._replace(length=jnp.asarray([-3])))
