"""python -m jtextdiff.train: trains any method from its config, and goes on where an earlier run stopped."""

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jtextdiff.cli.arguments import Parser
from jtextdiff.cli.errors import Interrupted, UserError
from jtextdiff.cli.main import main
from jtextdiff.devices.distributed import add_processes, join
from jtextdiff.training.signals import stop_signals

EXAMPLES = """examples:
  python -m jtextdiff.train --config configs/diffusion_lm.py
  python -m jtextdiff.train --config configs/diffusion_lm.py --config.text.path=my_texts.txt --workdir runs/mine
  python -m jtextdiff.train --config configs/autoregressive.py --config.num_steps=500 --config.method.trunk.width=64
  python -m jtextdiff.train --config configs/diffusion_lm.py:paper --dry_run --devices 8 --config.mesh.fsdp=8

Every field of a config can be set with --config.FIELD=VALUE; the file itself says what they mean.
Run the same command again to go on after a stop: only num_steps, every and mesh may differ.
"""


def parser() -> Parser:
    it = Parser(prog="python -m jtextdiff.train", description="Trains a model.", epilog=EXAMPLES)
    it.add_argument(
        "--config", required=True, metavar="FILE[:PRESET]", help="a config, such as configs/diffusion_lm.py"
    )
    it.add_argument("--workdir", metavar="DIR", help="where the run lives (default: runs/NAME[-PRESET])")
    it.add_argument(
        "--dry_run", action="store_true", help="train nothing: tell what a step would need on each device, as JSON"
    )
    it.add_argument(
        "--devices", type=int, metavar="N", help="with --dry_run: of N simulated devices instead of those there are"
    )
    it.add_argument(
        "--profile", action="store_true", help="trace ten steps into DIR/profile, for TensorBoard or Perfetto"
    )
    it.add_argument("--wandb", metavar="PROJECT", help="log to Weights & Biases too: pip install -e '.[wandb]'")
    add_processes(it)
    return it


def command(arguments: Sequence[str]) -> None:
    flags, rest = parser().parse_known_args(arguments)
    for text in rest:
        if not text.startswith("--config."):
            raise UserError(f"Unknown argument {text!r}. See python -m jtextdiff.train --help.")
    if flags.devices is not None and (not flags.dry_run or flags.devices < 1):
        raise UserError(f"--devices goes with --dry_run, to simulate at least one device; got {flags.devices}.")
    from jtextdiff.run.config import to_json

    config, workdir = planned(flags.config, rest, flags.workdir)
    if flags.dry_run:
        from jtextdiff.training.dry_run import dry_run, simulate

        simulate(flags.devices)
        print(json.dumps(dry_run(config, workdir), indent=2))
        return
    if flags.wandb and not find_spec("wandb"):
        raise UserError("--wandb needs the package wandb: pip install -e '.[wandb]', then wandb login.")
    join(flags, f"{to_json(config)} {workdir.absolute()}")
    with how_to_go_on(arguments):
        begin(config, workdir, profile=flags.profile, wandb=flags.wandb)


def run(config: str, overrides: Sequence[str] = (), *, workdir: str | Path | None = None) -> Path:
    """Trains from Python what the command line trains, and returns the run's directory, for `jtextdiff.load`.

    `config` is a file such as "configs/masked.py:preset", `overrides` are texts such as "num_steps=2000". A run that is
    there goes on. Raises UserError for whatever is wrong with these.
    """
    built, home = planned(config, [f"--config.{text}" for text in overrides], workdir)
    begin(built, home)
    return home


def planned(path: str, overrides: Sequence[str], workdir: str | Path | None) -> tuple[Any, Path]:
    """The config of a file with overrides, checked, and where its run lives."""
    from jtextdiff.control.trained import home_of
    from jtextdiff.run.config import load_config
    from jtextdiff.run.workdir import default_workdir
    from jtextdiff.training.control_setup import on_base
    from jtextdiff.training.setup import check

    config, home = load_config(path, overrides), default_workdir(path)
    if "base" in config:
        config = on_base(config)
        home = home_of(config.base, config.label)
    home = Path(workdir) if workdir else home
    check(config, home)
    return config, home


def begin(config: Any, workdir: Path, *, profile: bool = False, wandb: str | None = None) -> None:
    """Trains, or goes on; one process of a run holds it for all."""
    import jax

    from jtextdiff.devices.multihost import is_first
    from jtextdiff.run.workdir import locked
    from jtextdiff.training.latent_control import fit
    from jtextdiff.training.loop import train

    with locked(workdir) if is_first() else nullcontext():
        if config.method["class"].endswith(":LatentClassifier"):
            if jax.process_count() > 1:
                raise UserError("A control of latents is fitted in seconds by one process: leave the others out.")
            fit(config, workdir)  # seconds, of which nothing is kept if it is stopped
            return
        with stop_signals() as stopped:
            train(config, workdir, stopped, profile=profile, wandb=wandb)


@contextmanager
def how_to_go_on(arguments: Sequence[str]) -> Iterator[None]:
    """Adds the command to what is said of a run that was asked to stop."""
    try:
        yield
    except Interrupted as stop:
        command = shlex.join(["python", "-m", "jtextdiff.train", *arguments])
        raise Interrupted(f"{stop}\n  {command}", stop.status) from None


if __name__ == "__main__":
    main(command)
