"""python -m jtextdiff.benchmark: times training, sampling, guidance and latent editing, as ratios within one run."""

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
  python -m jtextdiff.benchmark guide  --checkpoint runs/diffusion_lm --control food=Japanese \\
      --against runs/autoregressive
  python -m jtextdiff.benchmark guide  --checkpoint runs/diffusion_lm --control food=Japanese --num 512 \\
      --judge runs/autoregressive
  python -m jtextdiff.benchmark edit   --checkpoint runs/latent_ops --control sentiment=positive

Calls are timed in turn, in --repeats rounds. The fastest time of each is reported, in wall-clock and in CPU
seconds, next to the machine's own rate of float32 matrix products. PyTorch, eager and compiled, is timed too if it is
installed (pip install -e '.[peer]') and implements the config. Samplers other than that of Diffusion-LM are compared
with an untrained GPT-2 of the same size. The result is JSON.

guide compares guided with unguided sampling of the run, with the guidance of the paper's code (ddim, eta 1, 200
steps, 3 sign updates), with the autoregressive run and with GPT-2. The paper's rate of 0.1 is absolute there; here
guidance.rate is in units of the standard deviation of a coordinate of the word vectors. With --num, that many texts
are sampled with both kinds of guidance and the same seed, and the result has the share that satisfies the control.

edit compares edits of --num texts at once with their encoding and decoding, with the flow of as many latents, and with
up to 16 of the texts edited one at a time (edit_of_one); seconds are per text.
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m jtextdiff.benchmark",
        description="Times training, sampling, guidance or latent editing.",
        epilog=EXAMPLES,
    )
    subparsers = parser.add_subparsers(
        dest="what", required=True, metavar="train|sample|guide|edit", parser_class=Parser
    )
    train = subparsers.add_parser("train", help="the training step of a config", epilog=EXAMPLES)
    train.add_argument("--config", required=True, metavar="FILE[:PRESET]", help="as in jtextdiff.train")
    train.add_argument("--num_steps", type=int, default=40, metavar="N", help="steps per round (default: 40)")
    sample = subparsers.add_parser("sample", help="the sampler of a trained model", epilog=EXAMPLES)
    add_checkpoint(sample)
    sample.add_argument("--against", metavar="DIR", help="another run to compare with")
    sample.add_argument("--num", type=int, default=64, help="batch size (default: 64)")
    guide = subparsers.add_parser("guide", help="guided sampling of a trained model", epilog=EXAMPLES)
    add_checkpoint(guide)
    add_control(guide)
    guide.add_argument("--against", metavar="DIR", help="an autoregressive run to compare with")
    guide.add_argument("--batches", type=_batches, default=[1, 16, 64], metavar="N,N", help="sizes (default: 1,16,64)")
    guide.add_argument("--num", type=int, default=0, metavar="N", help="number of texts to score (default: 0)")
    guide.add_argument(
        "--judge",
        metavar="DIR|hub:NAME",
        help="an autoregressive run, or a published GPT-2, that computes perplexities of these texts",
    )
    edit = subparsers.add_parser("edit", help="latent editing", epilog=EXAMPLES)
    add_checkpoint(edit)
    add_control(edit)
    edit.add_argument("--against", metavar="DIR", help="a Diffusion-LM whose guided sampling is timed for comparison")
    edit.add_argument(
        "--against_control", metavar="NAME=VALUE", action="append", default=[], help="control of that Diffusion-LM"
    )
    edit.add_argument("--num", type=int, default=256, help="number of valid texts to edit (default: 256)")
    for subparser in (train, sample, guide, edit):
        subparser.add_argument("--repeats", type=int, default=3, help="number of rounds (default: 3)")
    for subparser in (train, sample, guide):
        subparser.add_argument("--no_peer", action="store_true", help="do not time PyTorch")
    return parser


def _batches(text: str) -> list[int]:
    sizes = [size.strip() for size in text.split(",")]
    if not all(size.isascii() and size.isdecimal() and len(size) < 10 and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"expected numbers of at least 1, such as 1,16,64, got {text!r}")
    return list(dict.fromkeys(map(int, sizes)))


def command(arguments: Sequence[str]) -> None:
    flags, overrides = build_parser().parse_known_args(arguments)
    for text in overrides:
        if flags.what != "train" or not text.startswith("--config."):
            raise UserError(f"Unknown argument {text!r}. See python -m jtextdiff.benchmark {flags.what} --help.")
    minima = {"num_steps": 1, "num": 0 if flags.what == "guide" else 1, "repeats": 1}
    for name, minimum in minima.items():
        if getattr(flags, name, minimum) < minimum:
            raise UserError(f"--{name} must be at least {minimum}, got {getattr(flags, name)}.")
    if flags.what == "train":
        result = run_train(flags, overrides)
    else:
        result = {"sample": run_sample, "guide": run_guide, "edit": run_edit}[flags.what](flags)
    print(json.dumps(result, indent=2))


def run_train(flags: Any, overrides: list[str]) -> dict[str, Any]:
    from jtextdiff.benchmarks.train_step import benchmark_train_step
    from jtextdiff.devices.compilation_cache import compilation_cache_disabled
    from jtextdiff.run.config_files import load_config

    config = load_config(flags.config, overrides)
    with compilation_cache_disabled():
        return benchmark_train_step(config, num_steps=flags.num_steps, repeats=flags.repeats, peer=not flags.no_peer)


def run_sample(flags: Any) -> dict[str, Any]:
    from jtextdiff import load
    from jtextdiff.benchmarks.sampling import benchmark_sampling
    from jtextdiff.devices.compilation_cache import compilation_cache_disabled

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    against = load(flags.against) if flags.against else None
    with compilation_cache_disabled():
        return benchmark_sampling(model, against=against, num=flags.num, repeats=flags.repeats, peer=not flags.no_peer)


def run_guide(flags: Any) -> dict[str, Any]:
    from jtextdiff.control.controls import parse_controls

    control = parse_controls(flags.control)
    if control is None:
        raise UserError("guide times the cost of a control: give one with --control NAME=VALUE.")
    if flags.num == 1:
        raise UserError("--num must be 0, or at least 2 for a standard error; got 1.")
    if flags.judge and not flags.num:
        raise UserError(f"--judge {flags.judge} has no texts to judge: give their number with --num.")
    from jtextdiff import load
    from jtextdiff.benchmarks.guidance import benchmark_guidance
    from jtextdiff.devices.compilation_cache import compilation_cache_disabled
    from jtextdiff.evaluation.likelihood import load_judge
    from jtextdiff.run.corpus import open_corpus

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    against = load(flags.against) if flags.against else None
    corpus = open_corpus(model.config, Path(flags.checkpoint)) if flags.num else None
    judge = load_judge(flags.judge, model, flags.checkpoint) if flags.judge else None
    with compilation_cache_disabled():
        return benchmark_guidance(
            model,
            control,
            against=against,
            batches=flags.batches,
            repeats=flags.repeats,
            peer=not flags.no_peer,
            num=flags.num,
            corpus=corpus,
            judge=judge,
        )


def run_edit(flags: Any) -> dict[str, Any]:
    from jtextdiff import load
    from jtextdiff.benchmarks.editing import benchmark_editing
    from jtextdiff.control.controls import parse_controls
    from jtextdiff.devices.compilation_cache import compilation_cache_disabled
    from jtextdiff.evaluation.score import real_texts
    from jtextdiff.run.corpus import open_corpus

    control = parse_controls(flags.control)
    if control is None:
        raise UserError("edit times the cost of an edit: give its control with --control NAME=VALUE.")
    if bool(flags.against) != bool(flags.against_control):
        raise UserError("--against and --against_control go together: a Diffusion-LM, and the control for its samples.")
    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    texts = real_texts(model, open_corpus(model.config, Path(flags.checkpoint)), "valid", flags.num)
    against, against_control = load(flags.against) if flags.against else None, parse_controls(flags.against_control)
    with compilation_cache_disabled():
        return benchmark_editing(
            model, control, texts, against=against, against_control=against_control, repeats=flags.repeats
        )


if __name__ == "__main__":
    main(command)
