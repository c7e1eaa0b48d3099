"""A text VAE to be controlled in its latent space (LatentOps, Liu et al. 2022, arXiv:2208.00638), minutes on two cores.

python -m jtextdiff.train --config configs/latent_ops.py
python -m jtextdiff.train --config configs/latent_ops.py --config.text.path=my_texts.txt --workdir runs/mine

`:cvae` is the baseline that is told a label of each text in training, and writes to one: `--config.method.condition`
names it. It needs no control of its own, and can be told of no other label.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config import choose_preset, spec
from jtextdiff.run.optim import AdamW
from jtextdiff.text.corpora import Text


def get_config(preset: str = "") -> ConfigDict:
    return choose_preset(preset, {"": default, "cvae": cvae})()


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
    c.method.condition = "sentiment"
    return c
