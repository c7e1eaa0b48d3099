"""Masked diffusion in continuous time (MDLM, MD4), sized for minutes on two cores.

python -m jtextdiff.train --config configs/masked.py

The fields of the method are explained in jtextdiff/methods/masked.py, the common ones in
jtextdiff/run/config_files.py.
"""

from jtextdiff.methods.masked import Masked
from jtextdiff.run.config import Config, spec
from jtextdiff.run.config_files import base_config, choose_preset
from jtextdiff.sampling.masked_samplers import Unmasking
from jtextdiff.training.optimizer import Optimizer


def get_config(preset: str = "") -> Config:
    return choose_preset(preset, {"": default})()


def default() -> Config:
    return base_config(
        spec(Masked, sampler=Unmasking(top_p=0.9, correct="random")),
        spec(Optimizer, matrix_optimizer="muon", peak=3e-3),
        num_steps=4_500,
        batch_size=64,
    )
