"""Diffusion-LM (Li et al. 2022, arXiv:2205.14217), sized for minutes on two cores.

python -m jtextdiff.train --config configs/diffusion_lm.py
python -m jtextdiff.train --config configs/diffusion_lm.py --config.text.path=my_texts.txt --workdir runs/mine

Presets: `:paper` is the model, loss and optimizer of the authors' release, for their E2E data (give text.path); `:e2e`
is the default recipe at a size for one GPU. Neither has been trained to its end by us.

The fields of the method are explained in jtextdiff/methods/diffusion_lm.py, the common ones in
jtextdiff/run/config_files.py.
"""

from jtextdiff.data.corpus import Text
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config import Config, spec
from jtextdiff.run.config_files import base_config, choose_preset
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.guidance import RELEASED
from jtextdiff.training.optimizer import Optimizer


def get_config(preset: str = "") -> Config:
    return choose_preset(preset, {"": default, "paper": paper, "e2e": e2e})()


def default() -> Config:
    return base_config(
        spec(DiffusionLM),
        spec(Optimizer, peak=3e-3),
        num_steps=9_000,
        batch_size=32,
        evaluate=1_000,
        sample=2_000,
    )


def paper() -> Config:
    """As released: 87,129,749 parameters at 821 words. PAD is modelled, so texts fill 64 tokens.

    The released data differ in two ways: their texts begin with START and end with a newline before END, and longer
    ones are cut where ours are dropped.

    The released decoding in 200 steps rebuilt the schedule with T = 200 and gave the network time 5 i at step i, where
    training had given it 5 i + 4.5: `--override method.num_steps=200` does the same. Without it the times are those of
    training.
    """
    return base_config(
        _released_method(),
        _released_optimizer(),
        num_steps=200_000,
        batch_size=64,
        text=spec(Text, tokenizer="words:11", buckets=1),
        log=200,
        evaluate=2_000,
        sample=10_000,
        checkpoint=5_000,
    )


def _released_method() -> Config:
    return spec(
        DiffusionLM,
        trunk=Transformer(
            num_layers=12,
            width=768,
            num_heads=12,
            norm="post",
            positions="learned",
            dropout=0.1,
            time_features=128,
            init="torch",
        ),
        embed_dim=16,
        embed_norm=None,
        embeddings="learned",
        schedule="sqrt",
        output="vector",
        projections="deep",
        self_conditioning=0.0,
        known_length=False,
        per_token_times=False,
        noisy_x_0=True,
        mse=1.0,
        rounding=1.0,
        prior=1.0,
        cross_entropy=0.0,
        sampler=Sampler(clamp=1.0, guidance=RELEASED),
    )


def _released_optimizer() -> Config:
    return spec(
        Optimizer,
        peak=1e-4,
        warmup=0,
        decay="linear",
        b2=0.999,
        weight_decay=0.0,
        clip=None,
        ema=0.9999,
        ema_warmup=False,
    )


def e2e() -> Config:
    """The default recipe, 40 times as large."""
    trunk = Transformer(num_layers=12, width=512, num_heads=8, dropout=0.1, time_features=128)
    return base_config(
        spec(DiffusionLM, trunk=trunk, embed_dim=128),
        spec(Optimizer, peak=6e-4, warmup=1_000, ema=0.9995),
        num_steps=40_000,
        batch_size=256,
        log=100,
        evaluate=1_000,
        sample=5_000,
        checkpoint=1_000,
    )
