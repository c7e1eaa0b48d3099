"""A text VAE for control in its latent space (LatentOps, Liu et al. 2022, arXiv:2208.00638), minutes on two cores.

python -m jtextdiff.train --config configs/latent_ops.py
python -m jtextdiff.train --config configs/latent_ops.py --config.text.path=my_texts.txt --workdir runs/mine

`:edits` stores more of a text in its latent, so that edits keep more of it. `:cvae` is the baseline that is conditioned
on the label `--config.method.condition`. It needs no control for that label, and accepts no other. With
`--config.num_labelled=200` it is trained on the labels of 200 texts of each value, and on the predictions of an n-gram
classifier for the others. `:paper` has the published sizes and constants, and `:reviews_zh` tokens and lengths for
clauses of Chinese reviews, such as `python -m jtextdiff.prepare` writes; give both the text with `--config.text.path`.

With `--config.init`, the decoder starts from a published GPT-2, or the encoder from a BERT.

The fields of the method are explained in jtextdiff/methods/text_vae.py, the common ones in
jtextdiff/run/config_files.py.
"""

from ml_collections.config_dict import placeholder

from jtextdiff.data.corpus import Text
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config import Config, spec
from jtextdiff.run.config_files import base_config, choose_preset
from jtextdiff.training.optimizer import Optimizer


def get_config(preset: str = "") -> Config:
    presets = {"": default, "edits": edits, "cvae": cvae, "paper": paper, "reviews_zh": reviews_zh}
    return choose_preset(preset, presets)()


def default() -> Config:
    return base_config(
        spec(
            TextVAE,
            encoder=Transformer(num_layers=2, width=128, num_heads=4),
            decoder=Transformer(num_layers=2, width=128, num_heads=4, causal=True),
        ),
        spec(Optimizer, peak=2e-3),
        num_steps=9_000,
        batch_size=64,
        sample=2_000,
    )


def edits() -> Config:
    """The same networks with twice the numbers in the latent, and a third of the weight of the KL."""
    c = default()
    c.method.latent_dim, c.method.beta, c.method.beta_first = 128, 0.1, 0.05
    return c


def cvae() -> Config:
    """The same networks, conditioned on a label."""
    c = default()
    c.num_labelled = placeholder(int)  # texts of each value with their label, pseudo-labels for the others; unset: all
    c.method.condition = "sentiment"
    return c


def reviews_zh() -> Config:
    """The default networks on Chinese characters: no word is unknown, and BLEU and judges count characters, too."""
    c = default()
    c.text = spec(Text, tokenizer="characters:8", length=32)
    c.method.pooling_heads = 12  # a text of 22 characters has more information than one of 9 words
    return c


def paper() -> Config:
    """The released sizes and constants for Yelp, trained from random parameters, or with `init` from GPT-2 or BERT.

    The released encoder started as a small BERT, the decoder as GPT-2 with one layer before it; most of these stayed
    frozen. The weight of the released divergence was 0, rose and was held, in cycles, and of each latent dimension
    only the divergence above .9 nats counted; here the weight rises once, and .9 nats are free. The release pooled
    the latent from the mean of all tokens, which a query can represent by uniform weights.
    """
    method = spec(
        TextVAE,
        encoder=Transformer(num_layers=4, width=512, num_heads=8, norm="post", positions="learned", dropout=0.1),
        decoder=Transformer(num_layers=13, width=768, num_heads=12, positions="learned", dropout=0.1, causal=True),
        pooling_heads=1,
        memory_slots=1,
        beta=0.9,
        beta_first=0.9,
        free_bits=0.9,
        bag_of_words_weight=0.0,
        encoder_word_dropout=0.0,
        decoder_word_dropout=0.0,
        prior_fit="adversarial",
    )
    return base_config(
        method,
        spec(Optimizer, peak=5e-5, warmup=0, decay="linear", b2=0.999, weight_decay=0.0, ema=0.0),
        num_steps=700_000,
        batch_size=64,
        text=spec(Text, tokenizer="pretrained:gpt2", length=32),
        log=200,
        evaluate=2_000,
        sample=10_000,
        checkpoint=5_000,
    )
