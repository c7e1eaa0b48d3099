"""A text VAE with a latent for every few layers (DELLA, Hu et al. 2022, arXiv:2207.06130), half an hour on two cores.

python -m jtextdiff.train --config configs/della.py
python -m jtextdiff.train --config configs/della.py --config.text.path=data/reviews/pieces \
  --config.text.tokenizer=characters:8 --config.text.length=32

Each level of the latent has its own part of the encoder's output, and multiplies the attention values of its own layers
of the decoder. Controls, edits and flows see all levels as one vector, as with configs/latent_ops.py. By default the
levels are independent under the prior: `:paper` has the published chain of levels, sizes and constants, `:small` the
sizes of configs/latent_ops.py, and `:transformer_xl` two Transformer-XL with chained levels, for Chinese reviews.

The fields of the method are explained in jtextdiff/methods/text_vae.py, those of the levels in
jtextdiff/methods/components/latent_levels.py, the common ones in jtextdiff/run/config_files.py.
"""

from jtextdiff.data.corpus import Text
from jtextdiff.methods.components.latent_levels import Levels
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config import Config, spec
from jtextdiff.run.config_files import base_config, choose_preset
from jtextdiff.training.optimizer import Optimizer


def get_config(preset: str = "") -> Config:
    presets = {"": default, "small": small, "paper": paper, "transformer_xl": transformer_xl}
    return choose_preset(preset, presets)()


def default() -> Config:
    """Four levels of 32 numbers, one for each layer."""
    return _config(levels=Levels(num=4, fusion_rank=1), latent_dim=128, num_layers=4)


def small() -> Config:
    """Two levels, in networks and a latent of the sizes of configs/latent_ops.py."""
    return _config(levels=Levels(num=2, fusion_rank=1), latent_dim=64, num_layers=2)


def transformer_xl() -> Config:
    """Chained levels, one for each layer, with the relative positions of Transformer-XL, for Chinese reviews."""
    levels = Levels(num=4, chained=True, spread=True, fusion_rank=1, free_nats=2.2)
    c = _config(levels=levels, latent_dim=128, num_layers=4, positions="xl")
    c.text = spec(Text, tokenizer="characters:8", length=48)
    return c


def _config(*, levels: Levels, latent_dim: int, num_layers: int, positions: str = "learned+rotary") -> Config:
    shape = {"num_layers": num_layers, "width": 128, "num_heads": 4, "positions": positions}
    encoder, decoder = Transformer(**shape), Transformer(**shape, causal=True)
    return base_config(
        spec(TextVAE, encoder=encoder, decoder=decoder, latent_dim=latent_dim, levels=levels),
        spec(Optimizer, peak=2e-3),
        num_steps=8_000,
        batch_size=64,
        sample=2_000,
    )


def paper() -> Config:
    """The published sizes, trained from random parameters.

    The published encoder and decoder both started from GPT-2 and shared their parameters; here they have their own. The
    released loss takes the mean of the divergence over the 12 levels where the paper has their sum, so its weight is
    1/12 here. That weight was almost 0 for half of a cycle, rose and was held; here it rises once. The published
    product of two sums is of rank one; here the rank is four.
    """
    shape = {"num_layers": 12, "width": 768, "num_heads": 12, "positions": "learned", "dropout": 0.1}
    method = spec(
        TextVAE,
        encoder=Transformer(**shape),
        decoder=Transformer(**shape, causal=True),
        latent_dim=384,
        levels=Levels(num=12, chained=True, spread=True, fusion_rank=4, decoder_input=False),
        pooling_heads=1,
        beta=1 / 12,
        beta_first=1e-5,
        bag_of_words_weight=0.0,
        encoder_word_dropout=0.0,
        decoder_word_dropout=0.0,
        importance_samples=30,
    )
    return base_config(
        method,
        spec(Optimizer, peak=5e-5, warmup=0, decay="linear", b2=0.999, weight_decay=0.0, ema=0.0),
        num_steps=125_000,
        batch_size=32,
        text=spec(Text, tokenizer="pretrained:gpt2", length=128),
        log=200,
        evaluate=2_000,
        sample=10_000,
        checkpoint=5_000,
    )
