"""python -m jtextdiff.visualize: plays denoising trajectories in the terminal and writes them as PNG and HTML."""

from collections.abc import Sequence
from pathlib import Path

from jtextdiff.cli.arguments import Parser, add_checkpoint, add_control, add_seed, sampler_overrides
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main
from jtextdiff.cli.output import say

EXAMPLES = """examples:
  python -m jtextdiff.visualize --checkpoint runs/diffusion_lm
  python -m jtextdiff.visualize --checkpoint runs/diffusion_lm --num 1 --steps 50 --out denoising
  python -m jtextdiff.visualize --checkpoint runs/diffusion_lm --control food=Japanese --control keyword=pub
  python -m jtextdiff.visualize --checkpoint runs/diffusion_lm --template "The [MASK] [MASK] is near [MASK] ."
  python -m jtextdiff.visualize --checkpoint runs/latent_ops --control sentiment=positive --text "the soup was cold ."

Plays the denoising trajectory in the terminal and writes OUT.png and OUT.html, one page with a slider that needs no
network. With --control, the energy of each control at each step, −log p(control | x_t) in nats, is shown as well. A
length has no energy.
"""


def build_parser() -> Parser:
    parser = Parser(prog="python -m jtextdiff.visualize", description="Shows denoising trajectories.", epilog=EXAMPLES)
    add_checkpoint(parser)
    parser.add_argument("--num", type=int, default=3, help="number of sentences (default: 3)")
    add_control(parser)
    add_seed(parser, "random seed; the same seed gives the same sentences as `sample`")
    parser.add_argument("--template", help="a text with [MASK] for each word to fill in; the other words stay")
    parser.add_argument(
        "--text",
        help="latent editing: show how the latent flow edits this sentence to meet the controls, instead of sampling",
    )
    parser.add_argument("--frames", type=int, default=100, help="maximum number of frames (default: 100)")
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="output path without suffix (default: denoising in the run's directory, in this one for a published "
        "checkpoint)",
    )
    return parser


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    if flags.num < 1 or flags.frames < 2:
        raise UserError(f"--num must be at least 1 and --frames at least 2, got {flags.num} and {flags.frames}.")
    if flags.text is not None and (flags.template is not None or not flags.text.strip()):
        raise UserError("--text must be a non-empty sentence and cannot be combined with --template.")
    if flags.out:
        make_folder_of(flags.out)
    from rich.console import Console

    from jtextdiff import load
    from jtextdiff.cli.output import write_atomically
    from jtextdiff.control.controls import parse_controls
    from jtextdiff.visualization.html_page import html_page
    from jtextdiff.visualization.png_figure import draw_png
    from jtextdiff.visualization.recording import record
    from jtextdiff.visualization.terminal import play
    from jtextdiff.visualization.trajectory import subsample

    control = parse_controls(flags.control)
    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    num = flags.num if flags.text is None else 1
    trajectory = record(model, num, seed=flags.seed, template=flags.template, control=control, text=flags.text)
    trajectory = subsample(trajectory, min(flags.frames, len(trajectory.times)))
    play(trajectory, Console(stderr=True))
    out = Path(flags.out) if flags.out else (model.run or Path()) / "denoising"
    png, page = out.with_name(out.name + ".png"), out.with_name(out.name + ".html")
    draw_png(trajectory, png)
    write_atomically(page, html_page(trajectory))
    say(f"{png}\n{page}")


def make_folder_of(out: str) -> None:
    """Creates the folder of --out, before any work is done. Raises UserError if it cannot be created."""
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot create the folder {Path(out).parent}: {error.strerror}.") from None


if __name__ == "__main__":
    main(command)
