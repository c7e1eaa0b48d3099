"""Autoregressive language model: the baseline, and the judge of the other models' samples.

python -m jtextdiff.train --config configs/autoregressive.py

The fields of the method are explained in jtextdiff/methods/autoregressive.py, the common ones in
jtextdiff/run/config_files.py.
"""

from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.run.config import Config, spec
from jtextdiff.run.config_files import base_config, choose_preset
from jtextdiff.training.optimizer import Optimizer


def get_config(preset: str = "") -> Config:
    return choose_preset(preset, {"": default})()


def default() -> Config:
    return base_config(
        spec(Autoregressive),
        spec(Optimizer, matrix_optimizer="muon", peak=3e-3),
        num_steps=4_500,
        batch_size=64,
    )
