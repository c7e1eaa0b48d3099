"""python -m jtextdiff.sample: writes texts with a trained model, one a line on stdout."""

from collections.abc import Sequence

from jtextdiff.cli.arguments import (
    Parser,
    add_balance,
    add_checkpoint,
    add_choice,
    add_control,
    add_seed,
    sampler_overrides,
)
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main
from jtextdiff.cli.output import say

EXAMPLES = """examples:
  python -m jtextdiff.sample --checkpoint runs/diffusion_lm --num 8
  python -m jtextdiff.sample --checkpoint runs/diffusion_lm --steps 50 --sampler dpm_solver --seed 3
  python -m jtextdiff.sample --checkpoint runs/diffusion_lm --template "The [MASK] [MASK] is near [MASK] ."
  python -m jtextdiff.sample --checkpoint runs/diffusion_lm --control food=Japanese --control length=12

Sample i depends on the seed and on i alone. With a template, every [MASK] is one word to write; the other
words stay as they are. An autoregressive model takes words at the start of a template alone.
"""


def parser() -> Parser:
    it = Parser(prog="python -m jtextdiff.sample", description="Writes texts with a trained model.", epilog=EXAMPLES)
    add_checkpoint(it)
    it.add_argument("--num", type=int, default=8, help="how many texts (default: 8)")
    add_seed(it, "the same seed gives the same texts")
    add_control(it)
    add_balance(it)
    add_choice(it)
    it.add_argument("--template", help="words that stay, and a [MASK] for each word to write")
    return it


def command(arguments: Sequence[str]) -> None:
    flags = parser().parse_args(arguments)
    if flags.num < 1:
        raise UserError(f"--num must be at least 1, got {flags.num}.")
    from rich.console import Console
    from rich.progress import Progress

    from jtextdiff.cli.output import one_line
    from jtextdiff.control.balancing import weighed
    from jtextdiff.inference.model import load
    from jtextdiff.inference.reranking import choice, chosen

    wish = choice(flags)
    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    wish = wish._replace(control=weighed(model, wish.control, flags.balance))
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sampling", total=flags.num * wish.many)
        forward = lambda done: bar.advance(task, done)
        texts, _ = chosen(model, flags.num, wish, seed=flags.seed, template=flags.template, progress=forward)
    if wish.many > 1:
        say(f"{str(wish)[0].upper()}{str(wish)[1:]}.")
    for text in texts:
        print(one_line(text))


if __name__ == "__main__":
    main(command)
