"""Diffusion-LM (Li et al. 2022, arXiv:2205.14217), sized for minutes on two cores.

python -m jtextdiff.train --config configs/diffusion_lm.py
python -m jtextdiff.train --config configs/diffusion_lm.py --config.text.path=my_texts.txt --workdir runs/mine
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jtextdiff.core.samplers import Sampler
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.run.config import choose_preset, spec
from jtextdiff.run.optim import AdamW
from jtextdiff.text.corpora import Text


def get_config(preset: str = "") -> ConfigDict:
    return choose_preset(preset, {"": default})()


def default() -> ConfigDict:
    c = ConfigDict()
    c.seed, c.num_steps, c.batch_size = 0, 9_000, 32
    c.text = spec(Text)
    c.method = spec(DiffusionLM, sampler=Sampler(temperature=0.7))  # a little below the law: see README, Numbers
    c.optim = spec(AdamW, peak=3e-3)
    c.warm_start = placeholder(str)  # a run whose parameters and tokenizer this one starts from
    c.every = ConfigDict(dict(log=50, evaluate=1_000, sample=2_000, checkpoint=500))
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    return c
