"""A text VAE to be controlled in its latent space (LatentOps, Liu et al. 2022, arXiv:2208.00638), minutes on two cores.

python -m jtextdiff.train --config configs/latent_ops.py
python -m jtextdiff.train --config configs/latent_ops.py --config.text.path=my_texts.txt --workdir runs/mine

`:cvae` is the baseline that is told a label of each text in training, and writes to one: `--config.method.condition`
names it. It needs no control of its own, and can be told of no other label. With `--config.num_labelled=200` it is told
the labels of 200 texts of each value, and of the others what n-grams of those say. `:paper` has the published sizes and
constants; give it the text with `--config.text.path`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jtextdiff.data.corpus import Text
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config import choose_preset, spec
from jtextdiff.training.optimizer import AdamW


def get_config(preset: str = "") -> ConfigDict:
    return choose_preset(preset, {"": default, "cvae": cvae, "paper": paper})()


def default() -> ConfigDict:
    c = ConfigDict()
    c.seed, c.num_steps, c.batch_size = 0, 9_000, 64
    c.text = spec(Text)
    c.method = spec(
        TextVAE,
        encoder=Transformer(num_layers=2, width=128, num_heads=4),
        decoder=Transformer(num_layers=2, width=128, num_heads=4, causal=True),
    )
    c.optim = spec(AdamW, peak=2e-3)
    c.warm_start = placeholder(str)
    c.every = ConfigDict(dict(log=50, evaluate=500, sample=2_000, checkpoint=500))
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    return c


def cvae() -> ConfigDict:
    """The same networks, told a label."""
    c = default()
    c.num_labelled = placeholder(int)  # texts of each value whose label is known, the others' being guessed; unset: all
    c.method.condition = "sentiment"
    return c


def paper() -> ConfigDict:
    """The released sizes and constants for Yelp, from nothing: its encoder began as a small BERT, its decoder as GPT-2
    with one layer before it, most of which stayed as they were.

    Its divergence weighed 0, rose and was held, in cycles, and counted of each number only above .9 nats; here it rises
    once, and .9 nats are for nothing. It read the latent off the mean of all words, where a query can be uniform.
    """
    c = default()
    c.num_steps, c.batch_size = 700_000, 64
    c.text = spec(Text, tokenizer="pretrained:gpt2", length=32)
    c.method = spec(
        TextVAE,
        encoder=Transformer(num_layers=4, width=512, num_heads=8, norm="post", positions="learned", dropout=0.1),
        decoder=Transformer(num_layers=13, width=768, num_heads=12, positions="learned", dropout=0.1, causal=True),
        queries=1,
        slots=1,
        beta=0.9,
        beta_first=0.9,
        free_bits=0.9,
        bag=0.0,
        hidden_read=0.0,
        hidden_written=0.0,
        fit="adversarial",
    )
    c.optim = spec(AdamW, peak=5e-5, warmup=0, decay="linear", b2=0.999, weight_decay=0.0, ema=0.0)
    c.every = ConfigDict(dict(log=200, evaluate=2_000, sample=10_000, checkpoint=5_000))
    return c
