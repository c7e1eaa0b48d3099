"""A control: a classifier of a trained model's noisy states, which then steers its samples.

python -m jtextdiff.train --config configs/control.py --config.base=runs/diffusion_lm --config.label=food
python -m jtextdiff.sample --checkpoint runs/diffusion_lm --control food=Japanese

It is kept in BASE/controls/LABEL. Its text is the base's, unless text.path names another, with labels of its own; texts
without the label have the value "none", so where most have none because nobody looked, name a file of those that have.
Of the grammar's texts two more labels are known: pos, the part of speech of every word, and tree, the constituent of
every stretch of words.

Of a text VAE it is a classifier of latents, `latent`, and is fitted at once: a few hundred labelled texts are enough.

python -m jtextdiff.train --config configs/control.py --config.base=runs/latent_ops --config.label=sentiment \\
    --config.num_labelled=200
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jtextdiff.data.corpus import Text
from jtextdiff.methods.classifier import Classifier
from jtextdiff.methods.latent_classifier import LatentClassifier
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config import choose_preset, spec
from jtextdiff.training.optimizer import AdamW


def get_config(preset: str = "") -> ConfigDict:
    presets = {"": default, "paper": paper, "paper_pos": paper_pos, "paper_tree": paper_tree}
    return choose_preset(preset, presets)()


def default() -> ConfigDict:
    c = ConfigDict()
    c.base = placeholder(str)  # the run that is to be controlled
    c.label = placeholder(str)  # a label of the text, such as food
    c.num_labelled = placeholder(int)  # labelled texts of each value to learn from, of pos and tree in all; unset: all
    c.seed, c.num_steps, c.batch_size = 0, 2_000, 64
    c.text = spec(Text)
    c.method = spec(Classifier)
    c.latent = spec(LatentClassifier)
    c.optim = spec(AdamW)
    c.warm_start = placeholder(str)
    c.every = ConfigDict(dict(log=50, evaluate=500, sample=2_000, checkpoint=500))
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    return c


def paper() -> ConfigDict:
    """As released for attributes, but that it learned to write a value's words where ours tells values apart.

    The released guidance has one constant for fluency here, .01; the release had others for other controls. `weight`
    comes to the same, as does a weight of the control's own: a span is read off the classifier of trees with 1/10 of
    its energy, which `span=4-6:landmark*10.4` has.
    """
    c = default()
    c.num_steps, c.batch_size = 25_000, 10
    c.method = spec(Classifier, trunk=Transformer(num_layers=12, width=768, num_heads=12, norm="post", dropout=0.1))
    c.optim = spec(AdamW, peak=5e-5, warmup=0, decay="linear", b2=0.999, weight_decay=0.0, ema=0.0)
    return c


def paper_pos() -> ConfigDict:
    """Of parts of speech: a mean over 64 words, beside fluency of 1e-4."""
    c = paper()
    c.method.weight = 0.01 / 1e-4 / 64
    return c


def paper_tree() -> ConfigDict:
    """Of trees: a mean over the 2,080 stretches of 64 words, beside fluency of 5e-4."""
    c = paper()
    c.num_steps, c.batch_size = 26_000, 32
    c.method.weight = 0.01 / 5e-4 / 2_080
    return c
