"""python -m jtextdiff.benchmark: what training, sampling, guidance and editing cost, as ratios within one run."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jtextdiff.cli.arguments import Parser, add_checkpoint, add_control, sampler_overrides
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main

EXAMPLES = """examples:
  python -m jtextdiff.benchmark train  --config configs/diffusion_lm.py
  python -m jtextdiff.benchmark sample --checkpoint runs/diffusion_lm --num 64 --steps 200
  python -m jtextdiff.benchmark sample --checkpoint runs/masked --steps 16 --against runs/autoregressive
  python -m jtextdiff.benchmark guide  --checkpoint runs/diffusion_lm --control food=Japanese --against runs/ar
  python -m jtextdiff.benchmark guide  --checkpoint runs/diffusion_lm --control food=Japanese --num 512 --judge runs/ar
  python -m jtextdiff.benchmark edit   --checkpoint runs/latent_ops --control sentiment=positive

Everything is timed in turns, --repeats times; the least of each is taken, by the clock and in CPU seconds. Beside it
stands the machine's own rate at float32 matrix products, and PyTorch, eager and compiled, where it is installed
(pip install -e '.[peer]') and the config is one that the peer knows; other samplers are held against GPT-2, of the same
size and untrained. The result is JSON.

guide holds the run's own sampler and guidance against the same without a control, against guidance as the paper's code
has it (ddim, eta 1, 200 steps, 3 updates by sign), and against the autoregressive run and GPT-2. Its rate of 0.1, there
absolute, is taken in the units of guidance.rate, what a coordinate of a word's vector spans. With --num the texts of
both are drawn with one seed, and it is told how many are what was asked for.
"""


def parser() -> Parser:
    it = Parser(
        prog="python -m jtextdiff.benchmark",
        description="Times training, sampling, guidance or editing.",
        epilog=EXAMPLES,
    )
    what = it.add_subparsers(dest="what", required=True, metavar="train|sample|guide|edit", parser_class=Parser)
    train = what.add_parser("train", help="the training step of a config", epilog=EXAMPLES)
    train.add_argument("--config", required=True, metavar="FILE[:PRESET]", help="as for jtextdiff.train")
    train.add_argument("--num_steps", type=int, default=40, metavar="N", help="steps of one turn (default: 40)")
    sample = what.add_parser("sample", help="the sampler of a trained model", epilog=EXAMPLES)
    add_checkpoint(sample)
    sample.add_argument("--against", metavar="DIR", help="another run, whose sampler is timed in turns with it")
    sample.add_argument("--num", type=int, default=64, help="sentences in the batch (default: 64)")
    guide = what.add_parser("guide", help="what a control costs a trained model", epilog=EXAMPLES)
    add_checkpoint(guide)
    add_control(guide)
    guide.add_argument("--against", metavar="DIR", help="an autoregressive run, timed in turns with it")
    guide.add_argument(
        "--batches", type=_batches, default=[1, 16, 64], metavar="N,N", help="sentences in a batch (default: 1,16,64)"
    )
    guide.add_argument("--num", type=int, default=0, metavar="N", help="texts to judge as well (default: 0, none)")
    guide.add_argument("--judge", metavar="DIR", help="an autoregressive run that judges these texts")
    edit = what.add_parser("edit", help="what a rewrite by latents costs", epilog=EXAMPLES)
    add_checkpoint(edit)
    add_control(edit)
    edit.add_argument("--against", metavar="DIR", help="a Diffusion-LM, whose guided samples are timed beside")
    edit.add_argument("--against_control", metavar="NAME=VALUE", action="append", default=[], help="what it is asked")
    edit.add_argument("--num", type=int, default=256, help="texts of valid that are rewritten (default: 256)")
    for each in (train, sample, guide, edit):
        each.add_argument("--repeats", type=int, default=3, help="timings of each, taken in turns (default: 3)")
    for each in (train, sample, guide):
        each.add_argument("--no_peer", action="store_true", help="leave PyTorch out")
    return it


def _batches(text: str) -> list[int]:
    sizes = [each.strip() for each in text.split(",")]
    if not all(each.isascii() and each.isdecimal() and int(each) > 0 for each in sizes):
        raise argparse.ArgumentTypeError(f"expected numbers of at least 1, such as 1,16,64, got {text!r}")
    return list(dict.fromkeys(map(int, sizes)))


def command(arguments: Sequence[str]) -> None:
    flags, rest = parser().parse_known_args(arguments)
    for text in rest:
        if flags.what != "train" or not text.startswith("--config."):
            raise UserError(f"Unknown argument {text!r}. See python -m jtextdiff.benchmark {flags.what} --help.")
    least = {"num_steps": 1, "num": 0 if flags.what == "guide" else 1, "repeats": 1}
    for name, minimum in least.items():
        if getattr(flags, name, minimum) < minimum:
            raise UserError(f"--{name} must be at least {minimum}, got {getattr(flags, name)}.")
    if flags.what == "train":
        result = time_training(flags, rest)
    else:
        result = {"sample": time_sampling, "guide": time_guidance, "edit": time_editing}[flags.what](flags)
    print(json.dumps(result, indent=2))


def time_training(flags: Any, overrides: list[str]) -> dict[str, Any]:
    from jtextdiff.benchmarks.train_step import bench
    from jtextdiff.run.config import load_config

    config = load_config(flags.config, overrides)
    return bench(config, num_steps=flags.num_steps, repeats=flags.repeats, peer=not flags.no_peer)


def time_sampling(flags: Any) -> dict[str, Any]:
    from jtextdiff.benchmarks.sampling import bench
    from jtextdiff.inference.model import load

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    against = load(flags.against) if flags.against else None
    return bench(model, against=against, num=flags.num, repeats=flags.repeats, peer=not flags.no_peer)


def time_guidance(flags: Any) -> dict[str, Any]:
    from jtextdiff.control.controls import together

    control = together(flags.control)
    if control is None:
        raise UserError("guide times what a control costs: give one with --control NAME=VALUE.")
    if flags.num == 1:
        raise UserError("--num must be 0, or at least 2 for a standard error; got 1.")
    if flags.judge and not flags.num:
        raise UserError(f"--judge {flags.judge} has no texts to read: say with --num how many.")
    from jtextdiff.benchmarks.guidance import bench
    from jtextdiff.evaluation.likelihood import load_judge
    from jtextdiff.inference.model import load
    from jtextdiff.run.corpus import open_corpus

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    return bench(
        model,
        control,
        against=load(flags.against) if flags.against else None,
        batches=flags.batches,
        repeats=flags.repeats,
        peer=not flags.no_peer,
        num=flags.num,
        corpus=open_corpus(model.config, Path(flags.checkpoint)) if flags.num else None,
        judge=load_judge(flags.judge, model, flags.checkpoint) if flags.judge else None,
    )


def time_editing(flags: Any) -> dict[str, Any]:
    from jtextdiff.benchmarks.editing import bench
    from jtextdiff.control.controls import together
    from jtextdiff.evaluation.score import evenly
    from jtextdiff.inference.model import load
    from jtextdiff.run.corpus import open_corpus

    control = together(flags.control)
    if control is None:
        raise UserError("edit times what a rewrite costs: give what is wanted with --control NAME=VALUE.")
    if bool(flags.against) != bool(flags.against_control):
        raise UserError("--against and --against_control go together: a Diffusion-LM, and what it is asked for.")
    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    texts = evenly(model, open_corpus(model.config, Path(flags.checkpoint)), "valid", flags.num)
    against = load(flags.against) if flags.against else None
    wanted = together(flags.against_control)
    return bench(model, control, texts, against=against, wanted=wanted, repeats=flags.repeats)


if __name__ == "__main__":
    main(command)
