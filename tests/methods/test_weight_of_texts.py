"""In the loss of every method all tokens weigh the same, whatever the lengths of their texts."""

import jax
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.data.batches import Batch
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.cmlm import CMLM
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.transformer import Transformer

TEXT_SPEC = TextSpec(vocab_size=9, mask=9, pad=0, eos=1, length=8, length_counts=(0, 0, 3, 0, 0, 0, 0, 0, 1))
TRUNK = Transformer(num_layers=1, width=16, num_heads=2)
METHODS = {
    "cross_entropy of Autoregressive": Autoregressive(
        text_spec=TEXT_SPEC, trunk=Transformer(**{**vars(TRUNK), "causal": True})
    ),
    "bound of Masked": Masked(text_spec=TEXT_SPEC, trunk=TRUNK),
    "words of CMLM": CMLM(text_spec=TEXT_SPEC, trunk=TRUNK),
    "cross_entropy of D3PM": D3PM(text_spec=TEXT_SPEC, trunk=TRUNK),
    "cross_entropy of DiffusionLM": DiffusionLM(
        text_spec=TEXT_SPEC, trunk=TRUNK, embed_dim=8, embeddings="learned", embed_norm=None
    ),
}
LENGTHS = np.asarray([2, 8, 2, 5])


@pytest.mark.parametrize("name", slow_but([next(iter(METHODS))], METHODS))
def test_a_term_of_the_loss_is_a_sum_over_tokens_by_the_mean_length(name: str) -> None:
    """A network of zeros predicts all tokens alike, so a term is the number of tokens times one number."""
    method, term = METHODS[name], name.split()[0]
    valid = np.arange(8) < LENGTHS[:, None]
    tokens = np.where(valid, np.where(np.arange(8) == LENGTHS[:, None] - 1, 1, 4), 0).astype(np.int32)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(method.init, jax.random.key(0)))
    terms = jax.jit(method.loss)(params, jax.random.key(1), Batch(tokens, valid, np.zeros_like(valid), {}))[1]
    per_token = np.asarray(terms[term]) * TEXT_SPEC.mean_length / LENGTHS
    np.testing.assert_allclose(per_token, per_token[0], rtol=1e-5)
    assert np.log(5) < per_token[0] < np.log(10) + 1e-4
