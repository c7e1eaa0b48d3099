"""Small runs, trained once per test session and shared by all workers."""

import fcntl
import json
import os
from pathlib import Path

from support.command_line import run

ROOT = Path(__file__).parents[2]
STEPS = 60
TOY = [
    "--config.batch_size=16",
    "--config.method.trunk.num_layers=1",
    "--config.method.trunk.width=32",
    "--config.method.trunk.num_heads=2",
    "--config.text.tokenizer=words:1",
    "--config.optim.peak=3e-3",  # the larger presets have learning rates for long runs
    "--config.optim.warmup=10",
    f"--config.optim.decay_steps={STEPS}",  # the same program for any number of steps
    "--config.every.log=1",
    "--config.every.evaluate=1000",
    "--config.every.sample=1000",
    "--config.every.checkpoint=1000",
]
TEXTS = [
    f"The {name} is {price} ." for name in ("Mill", "Swan", "Oak", "Crown") for price in ("cheap", "dear", "small")
]
"""The training texts of all configs, in `texts.txt`. The text VAE has the labelled ones of `rows.jsonl`."""

NAMES = ("Mill", "Swan", "Oak", "Crown", "Bell")
ROWS = [
    json.dumps({"text": f"The {name} is {word} .", "mood": mood, "size": size})
    for name in NAMES
    for word, mood, size in (("lovely", "good", "big"), ("awful", "bad", "small"), ("fine", "good", "small"))
]


def toy(workdir: str, steps: int, *more: str, config: str = "diffusion_lm.py") -> list[str]:
    """Returns the flags of a toy training with a config of this repository."""
    latent = config.startswith(("latent_ops", "della"))
    if config.startswith("della"):
        layers = [f"--config.method.{part}.num_layers=2" for part in ("encoder", "decoder")]
        more = ("--config.method.levels.num=2", *layers, *more)
    parts, text = (("encoder", "decoder"), "rows.jsonl") if latent else (("trunk",), "texts.txt")
    small = dict.fromkeys(flag.replace("trunk", part) for part in parts for flag in TOY)
    file = f"--config={ROOT}/configs/{config}"
    return [file, f"--workdir={workdir}", f"--config.text.path={text}", f"--config.num_steps={steps}", *small, *more]


def write_texts(folder: Path) -> None:
    (folder / "texts.txt").write_text("\n".join(TEXTS * 20) + "\n")
    (folder / "rows.jsonl").write_text("\n".join(ROWS * 8) + "\n")


def metrics(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def trained(config: str) -> Path:
    """Returns the run of a config after 60 toy steps, next to its texts. Copy it before changing it.

    The first worker to call this trains the run, and the others wait.
    """
    folder = Path(os.environ["JTEXTDIFF_CACHE"]) / "runs"
    folder.mkdir(exist_ok=True)
    name = config.replace(".py", "").replace(":", "-")
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / name / "checkpoints" / str(STEPS)).exists():
            write_texts(folder)
            done = run("train", *toy(name, STEPS, config=config), cwd=folder)
            assert done.returncode == 0 and done.stdout == "", done.stderr
    return folder / name


WITH_DEFAULT_SIGNALS = """
import os, signal, sys
for each in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(each, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Runs a command with default signal handlers. The tests may run where signals are ignored, as under nohup."""
