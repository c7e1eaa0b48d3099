"""Diffusion-LM (Li et al. 2022, arXiv:2205.14217), sized for minutes on two cores.

python -m jtextdiff.train --config configs/diffusion_lm.py
python -m jtextdiff.train --config configs/diffusion_lm.py --config.text.path=my_texts.txt --workdir runs/mine

Presets: `:paper` is the model, loss and optimiser that the paper's authors released, for their E2E data (give
text.path); `:e2e` is the default recipe at a size for one GPU. Neither has been trained to its end by us.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jtextdiff.data.corpus import Text
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config import choose_preset, spec
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.guidance import RELEASED
from jtextdiff.training.optimizer import AdamW


def get_config(preset: str = "") -> ConfigDict:
    return choose_preset(preset, {"": default, "paper": paper, "e2e": e2e})()


def default() -> ConfigDict:
    c = ConfigDict()
    c.seed, c.num_steps, c.batch_size = 0, 9_000, 32
    c.text = spec(Text)
    c.method = spec(DiffusionLM)
    c.optim = spec(AdamW, peak=3e-3)
    c.warm_start = placeholder(str)  # a run whose parameters and tokenizer this one starts from
    c.every = ConfigDict(dict(log=50, evaluate=1_000, sample=2_000, checkpoint=500))
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    return c


def paper() -> ConfigDict:
    """As released: 87,129,749 parameters at 821 words. PAD is modelled, so texts fill 64 tokens.

    Two things of its data are not ours: its texts begin with START and end with a newline before END, and longer
    ones are cut where ours are dropped.

    Its decoding in 200 steps rebuilt the schedule with T = 200 and told the network 5 i for step i, where training
    had told it 5 i + 4.5: `--override method.num_steps=200` does the same; without it the times are those trained.
    """
    c = default()
    c.num_steps, c.batch_size = 200_000, 64
    c.text = spec(Text, tokenizer="words:11", buckets=1)
    c.method, c.optim = _released_method(), _released_optim()
    c.every = ConfigDict(dict(log=200, evaluate=2_000, sample=10_000, checkpoint=5_000))
    return c


def _released_method() -> ConfigDict:
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
        vectors="learned",
        schedule="sqrt",
        answers="vector",
        doors="deep",
        self_conditioning=0.0,
        known_length=False,
        times="shared",
        noisy_x_0=True,
        mse=1.0,
        rounding=1.0,
        prior=1.0,
        cross_entropy=0.0,
        sampler=Sampler(clamp=1.0, guidance=RELEASED),
    )


def _released_optim() -> ConfigDict:
    return spec(
        AdamW,
        peak=1e-4,
        warmup=0,
        decay="linear",
        b2=0.999,
        weight_decay=0.0,
        clip=None,
        ema=0.9999,
        ema_warmup=False,
    )


def e2e() -> ConfigDict:
    """The default recipe, 40 times as large."""
    c = default()
    c.num_steps, c.batch_size = 40_000, 256
    c.method.trunk = spec(Transformer, num_layers=12, width=512, num_heads=8, dropout=0.1, time_features=128)
    c.method.embed_dim = 128
    c.optim = spec(AdamW, peak=6e-4, warmup=1_000, ema=0.9995)
    c.every = ConfigDict(dict(log=100, evaluate=1_000, sample=5_000, checkpoint=1_000))
    return c
