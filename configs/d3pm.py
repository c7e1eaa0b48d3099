"""D3PM (Austin et al. 2021), sized for minutes on two cores.

python -m jtextdiff.train --config configs/d3pm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jtextdiff.data.corpus import Text
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.run.config import choose_preset, spec
from jtextdiff.training.optimizer import AdamW


def get_config(preset: str = "") -> ConfigDict:
    return choose_preset(preset, {"": default})()


def default() -> ConfigDict:
    c = ConfigDict()
    c.seed, c.num_steps, c.batch_size = 0, 4_500, 64
    c.text = spec(Text)
    c.method = spec(D3PM)
    c.optim = spec(AdamW, matrices="muon", peak=3e-3)
    c.warm_start = placeholder(str)  # a run whose parameters and tokenizer this one starts from
    c.every = ConfigDict(dict(log=50, evaluate=500, sample=1_000, checkpoint=500))
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    return c
