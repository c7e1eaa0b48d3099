"""python -m jtextdiff.benchmark: what training and sampling cost, as ratios within one run."""

import json
from collections.abc import Sequence
from typing import Any

from jtextdiff.run.command import Parser, UserError, add_checkpoint, main, sampler_overrides

EXAMPLES = """examples:
  python -m jtextdiff.benchmark train  --config configs/diffusion_lm.py
  python -m jtextdiff.benchmark sample --checkpoint runs/diffusion_lm --num 64 --steps 200
  python -m jtextdiff.benchmark sample --checkpoint runs/masked --steps 16 --against runs/autoregressive

Everything is timed in turns, --repeats times; the least of each is taken, by the clock and in CPU seconds. Beside it
stands the machine's own rate at float32 matrix products, and PyTorch, eager and compiled, where it is installed
(pip install -e '.[peer]') and the config is one that the peer knows; other samplers are held against GPT-2, of the same
size and untrained. The result is JSON.
"""


def parser() -> Parser:
    it = Parser(prog="python -m jtextdiff.benchmark", description="Times training or sampling.", epilog=EXAMPLES)
    what = it.add_subparsers(dest="what", required=True, metavar="train|sample", parser_class=Parser)
    train = what.add_parser("train", help="the training step of a config", epilog=EXAMPLES)
    train.add_argument("--config", required=True, metavar="FILE[:PRESET]", help="as for jtextdiff.train")
    train.add_argument("--num_steps", type=int, default=40, metavar="N", help="steps of one turn (default: 40)")
    sample = what.add_parser("sample", help="the sampler of a trained model", epilog=EXAMPLES)
    add_checkpoint(sample)
    sample.add_argument("--against", metavar="DIR", help="another run, whose sampler is timed in turns with it")
    sample.add_argument("--num", type=int, default=64, help="sentences in the batch (default: 64)")
    for each in (train, sample):
        each.add_argument("--repeats", type=int, default=3, help="timings of each, taken in turns (default: 3)")
        each.add_argument("--no_peer", action="store_true", help="leave PyTorch out")
    return it


def command(arguments: Sequence[str]) -> None:
    flags, rest = parser().parse_known_args(arguments)
    for text in rest:
        if flags.what == "sample" or not text.startswith("--config."):
            raise UserError(f"Unknown argument {text!r}. See python -m jtextdiff.benchmark {flags.what} --help.")
    for name in ("num_steps", "num", "repeats"):
        if getattr(flags, name, 1) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(flags, name)}.")
    result = time_training(flags, rest) if flags.what == "train" else time_sampling(flags)
    print(json.dumps(result, indent=2))


def time_training(flags: Any, overrides: list[str]) -> dict[str, Any]:
    from jtextdiff.run.bench_train import bench
    from jtextdiff.run.config import load_config

    config = load_config(flags.config, overrides)
    return bench(config, num_steps=flags.num_steps, repeats=flags.repeats, peer=not flags.no_peer)


def time_sampling(flags: Any) -> dict[str, Any]:
    from jtextdiff.run.bench_sample import bench
    from jtextdiff.run.model import load

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    against = load(flags.against) if flags.against else None
    return bench(model, against=against, num=flags.num, repeats=flags.repeats, peer=not flags.no_peer)


if __name__ == "__main__":
    main(command)
