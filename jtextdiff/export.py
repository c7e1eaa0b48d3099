"""python -m jtextdiff.export: writes a trained model in a published layout, for other software and for import here."""

from collections.abc import Sequence
from pathlib import Path

from jtextdiff.cli.arguments import Parser, check_step
from jtextdiff.cli.main import main
from jtextdiff.cli.output import say

EXAMPLES = """examples:
  python -m jtextdiff.export runs/masked exported/masked
  python -m jtextdiff.export runs/masked exported/masked --at best

Writes model.safetensors, config.json, the tokenizer and a model card into a new folder, and the scores of the run if it
holds a file scores.json. The layout is that of MDLM, which masked diffusion has with the settings that
configs/README.md lists. To read the folder back: python -m jtextdiff.train --config configs/masked.py
--config.init=FOLDER.
"""

SCORES = "scores.json"


def build_parser() -> Parser:
    parser = Parser(prog="python -m jtextdiff.export", description="Exports a trained model.", epilog=EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="a run's directory, such as runs/masked")
    parser.add_argument("out", metavar="OUT", help="folder to write; it must not hold files yet")
    parser.add_argument("--at", default="latest", metavar="STEP", help="latest (default), best, or a checkpoint's step")
    return parser


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    check_step(flags.at)
    import jax

    import jtextdiff as jtd
    from jtextdiff.pretrained.export_files import published_config, write_export
    from jtextdiff.pretrained.model_card import model_card
    from jtextdiff.run.config import build
    from jtextdiff.run.workdir import read_config

    out, run = Path(flags.out), Path(flags.run)
    published_config(build(read_config(run).method))  # raises before parameters are read
    model = jtd.load(run, at=flags.at)
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    scores = run / SCORES if (run / SCORES).is_file() else None
    name = SCORES if scores else None
    card = model_card(out.name, model.config, step=model.step, count=count, scores=name)
    write_export(out, model.method, model.params, model.tokenizer, card, scores)
    say(f"{count:,} parameters of step {model.step} -> {out}")


if __name__ == "__main__":
    main(command)
