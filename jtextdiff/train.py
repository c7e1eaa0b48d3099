"""python -m jtextdiff.train: trains any method from its config, or resumes an earlier run."""

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
from jtextdiff.devices.distributed import add_process_flags, distributed_run
from jtextdiff.training.signals import stop_signals

EXAMPLES = """examples:
  python -m jtextdiff.train --config configs/diffusion_lm.py
  python -m jtextdiff.train --config configs/diffusion_lm.py --config.text.path=my_texts.txt --workdir runs/mine
  python -m jtextdiff.train --config configs/autoregressive.py --config.num_steps=500 --config.method.trunk.width=64
  python -m jtextdiff.train --config configs/diffusion_lm.py:paper --dry_run --devices 8 --config.mesh.fsdp=8

Every field of a config can be set with --config.FIELD=VALUE; the config file names the files that explain the fields.
To resume a run, give the same command again: only num_steps, every, mesh and method.sampler may differ.
"""


def build_parser() -> Parser:
    parser = Parser(prog="python -m jtextdiff.train", description="Trains a model.", epilog=EXAMPLES)
    parser.add_argument(
        "--config", required=True, metavar="FILE[:PRESET]", help="a config file, such as configs/diffusion_lm.py"
    )
    parser.add_argument("--workdir", metavar="DIR", help="directory of the run (default: runs/NAME[-PRESET])")
    parser.add_argument(
        "--dry_run", action="store_true", help="do not train: print what a step needs on each device, as JSON"
    )
    parser.add_argument(
        "--devices", type=int, metavar="N", help="with --dry_run: simulate N devices instead of using the real ones"
    )
    parser.add_argument(
        "--profile", action="store_true", help="trace ten steps into DIR/profile, for TensorBoard or Perfetto"
    )
    parser.add_argument(
        "--wandb", metavar="PROJECT", help="also log to Weights & Biases; needs: pip install -e '.[wandb]'"
    )
    add_process_flags(parser)
    return parser


def command(arguments: Sequence[str]) -> None:
    flags, overrides = build_parser().parse_known_args(arguments)
    for text in overrides:
        if not text.startswith("--config."):
            raise UserError(f"Unknown argument {text!r}. See python -m jtextdiff.train --help.")
    if flags.devices is not None and (not flags.dry_run or flags.devices < 1):
        raise UserError(f"--devices goes with --dry_run, to simulate at least one device; got {flags.devices}.")
    from jtextdiff.run.config import to_json

    config, workdir = load_plan(flags.config, overrides, flags.workdir)
    if flags.dry_run:
        from jtextdiff.training.dry_run import dry_run, simulate

        if config.num_steps < 1:
            raise UserError("--dry_run simulates a training step: give --config.num_steps=1 or more.")
        simulate(flags.devices)
        print(json.dumps(dry_run(config, workdir), indent=2))
        return
    if flags.wandb and not find_spec("wandb"):
        raise UserError("--wandb needs the package wandb: pip install -e '.[wandb]', then wandb login.")
    with distributed_run(flags, f"{to_json(config)} {workdir.absolute()}"), how_to_resume(arguments):
        start(config, workdir, profile=flags.profile, wandb=flags.wandb)


def train_model(config: str, overrides: Sequence[str] = (), *, workdir: str | Path | None = None) -> Path:
    """Trains from Python as the command line does, and returns the run's directory, for `jtextdiff.load`.

    `config` is a file such as "configs/masked.py:preset", `overrides` are texts such as "num_steps=2000". An existing
    run is resumed. Raises UserError for whatever is wrong with these.
    """
    from jtextdiff.run.config_files import check_overrides

    loaded, run_dir = load_plan(config, [f"--config.{text}" for text in check_overrides(overrides)], workdir)
    start(loaded, run_dir)
    return run_dir


def load_plan(path: str, overrides: Sequence[str], workdir: str | Path | None) -> tuple[Any, Path]:
    """Returns the validated config of a file with overrides, and the directory of its run."""
    from jtextdiff.control.trained import fitted_dir
    from jtextdiff.pretrained.start import with_settings
    from jtextdiff.run.config import is_control
    from jtextdiff.run.config_files import load_config
    from jtextdiff.run.workdir import default_workdir
    from jtextdiff.training.control_setup import control_config
    from jtextdiff.training.setup import validate_config

    config, default = load_config(path, overrides), default_workdir(path)
    if is_control(config):
        config = control_config(config)
        default = fitted_dir(config)
    run_dir = Path(workdir) if workdir else default
    config = with_settings(config, run_dir)
    validate_config(config, run_dir)
    return config, run_dir


def start(config: Any, workdir: Path, *, profile: bool = False, wandb: str | None = None) -> None:
    """Trains or resumes a run, which process 0 locks for all of its processes."""
    import jax

    from jtextdiff.devices.compilation_cache import enable_compilation_cache
    from jtextdiff.devices.multihost import is_process_zero
    from jtextdiff.devices.platform import check_platform
    from jtextdiff.methods.method import Fitted
    from jtextdiff.run.config import build
    from jtextdiff.run.workdir import locked
    from jtextdiff.training.latent_control import fit_control
    from jtextdiff.training.loop import train

    check_platform()
    enable_compilation_cache()
    with locked(workdir) if is_process_zero() else nullcontext():
        if isinstance(build(config.method), Fitted):
            if jax.process_count() > 1:
                raise UserError("This control is fitted in seconds by one process: start only one.")
            fit_control(config, workdir)  # takes seconds; if it is stopped, nothing is stored
            return
        with stop_signals() as stopped:
            train(config, workdir, stopped, profile=profile, wandb=wandb)


@contextmanager
def how_to_resume(arguments: Sequence[str]) -> Iterator[None]:
    """Adds the command to the message of a run that was stopped."""
    try:
        yield
    except Interrupted as stop:
        command = shlex.join(["python", "-m", "jtextdiff.train", *arguments])
        raise Interrupted(f"{stop}\n  {command}", stop.status) from None


if __name__ == "__main__":
    main(command)
