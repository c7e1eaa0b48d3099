"""D3PM (Austin et al. 2021), sized for minutes on two cores.

python -m jtextdiff.train --config configs/d3pm.py

The fields of the method are explained in jtextdiff/methods/d3pm.py, the common ones in
jtextdiff/run/config_files.py.
"""

from jtextdiff.methods.d3pm import D3PM
from jtextdiff.run.config import Config, spec
from jtextdiff.run.config_files import base_config, choose_preset
from jtextdiff.training.optimizer import Optimizer


def get_config(preset: str = "") -> Config:
    return choose_preset(preset, {"": default})()


def default() -> Config:
    return base_config(
        spec(D3PM),
        spec(Optimizer, matrix_optimizer="muon", peak=3e-3),
        num_steps=4_500,
        batch_size=64,
    )
