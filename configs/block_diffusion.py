"""Block diffusion (BD3-LM): blocks of four tokens from left to right, sized for minutes on two cores.

python -m jtextdiff.train --config configs/block_diffusion.py

The fields of the method are explained in jtextdiff/methods/block_diffusion.py, the common ones in
jtextdiff/run/config_files.py.
"""

from jtextdiff.methods.block_diffusion import BlockDiffusion
from jtextdiff.run.config import Config, spec
from jtextdiff.run.config_files import base_config, choose_preset
from jtextdiff.sampling.masked_samplers import Unmasking
from jtextdiff.training.optimizer import Optimizer


def get_config(preset: str = "") -> Config:
    return choose_preset(preset, {"": default})()


def default() -> Config:
    return base_config(
        spec(BlockDiffusion, sampler=Unmasking(top_p=0.9)),
        spec(Optimizer, matrix_optimizer="muon", peak=3e-3),
        num_steps=4_500,
        batch_size=64,
    )
