"""A control: a classifier of a trained model's noisy states, which then steers its samples.

python -m jtextdiff.train --config configs/control.py --config.base=runs/diffusion_lm --config.label=food
python -m jtextdiff.sample --checkpoint runs/diffusion_lm --control food=Japanese

It is kept in BASE/controls/LABEL. Its text is the base's, unless text.path names another, with labels of its own.
Of the grammar's texts two more labels are known: pos, the part of speech of every word, and tree, the constituent of
every stretch of words.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jtextdiff.methods.classifier import Classifier
from jtextdiff.run.config import choose_preset, spec
from jtextdiff.run.optim import AdamW
from jtextdiff.text.corpora import Text


def get_config(preset: str = "") -> ConfigDict:
    return choose_preset(preset, {"": default})()


def default() -> ConfigDict:
    c = ConfigDict()
    c.base = placeholder(str)  # the run that is to be controlled
    c.label = placeholder(str)  # a label of the text, such as food
    c.num_labelled = placeholder(int)  # labelled texts of each value to learn from, of pos and tree in all; unset: all
    c.seed, c.num_steps, c.batch_size = 0, 2_000, 64
    c.text = spec(Text)
    c.method = spec(Classifier)
    c.optim = spec(AdamW)
    c.warm_start = placeholder(str)
    c.every = ConfigDict(dict(log=50, evaluate=500, sample=2_000, checkpoint=500))
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    return c
