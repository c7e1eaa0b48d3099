"""python -m jtextdiff.visualize: shows how sentences come out of noise, in the terminal, as PNG and as HTML."""

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

Plays the denoising in the terminal and writes OUT.png and OUT.html, one page with a slider that needs no network.
With --control the energy of each, −log p(control | x_t) in nats, is shown as it falls. A length has none.
"""


def parser() -> Parser:
    it = Parser(prog="python -m jtextdiff.visualize", description="Shows the denoising of sentences.", epilog=EXAMPLES)
    add_checkpoint(it)
    it.add_argument("--num", type=int, default=3, help="how many sentences (default: 3)")
    add_control(it)
    add_seed(it, "the same seed shows the same sentences as `sample`")
    it.add_argument("--template", help="words that stay, and a [MASK] for each word to write")
    it.add_argument(
        "--text", help="by latents: the way of this sentence to where the controls take it, instead of new ones"
    )
    it.add_argument("--frames", type=int, default=100, help="most frames to keep (default: 100)")
    it.add_argument("--out", metavar="PATH", help="where the pictures go (default: DIR/denoising)")
    return it


def command(arguments: Sequence[str]) -> None:
    flags = parser().parse_args(arguments)
    if flags.num < 1 or flags.frames < 2:
        raise UserError(f"--num must be at least 1 and --frames at least 2, got {flags.num} and {flags.frames}.")
    if flags.text is not None and (flags.template is not None or not flags.text.strip()):
        raise UserError("--text is a sentence, and goes without --template.")
    from rich.console import Console

    from jtextdiff.cli.output import write_whole
    from jtextdiff.control.controls import together
    from jtextdiff.inference.model import load
    from jtextdiff.visualization.html_page import page
    from jtextdiff.visualization.png_figure import draw
    from jtextdiff.visualization.recording import record
    from jtextdiff.visualization.terminal import play
    from jtextdiff.visualization.trajectory import thin

    control = together(flags.control)
    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    num = flags.num if flags.text is None else 1
    film = record(model, num, seed=flags.seed, template=flags.template, control=control, text=flags.text)
    film = thin(film, min(flags.frames, len(film.times)))
    play(film, Console(stderr=True))
    out = Path(flags.out) if flags.out else Path(flags.checkpoint) / "denoising"
    out.parent.mkdir(parents=True, exist_ok=True)
    picture, document = out.with_name(out.name + ".png"), out.with_name(out.name + ".html")
    draw(film, picture)
    write_whole(document, page(film))
    say(f"{picture}\n{document}")


if __name__ == "__main__":
    main(command)
