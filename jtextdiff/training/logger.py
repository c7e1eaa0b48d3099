"""Training progress on the terminal, in metrics.jsonl, TensorBoard, Weights & Biases and loss.png."""

import importlib
import json
import math
import time
import uuid
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from jtextdiff.cli.output import one_line, write_atomically
from jtextdiff.run.config import to_json
from jtextdiff.run.workdir import truncate_metrics


class MetricsLogger:
    """Logs a run to stderr (a progress bar, or plain lines outside a terminal), metrics.jsonl, TensorBoard, loss.png.

    `quiet`: nothing is printed on stderr.
    """

    def __init__(self, workdir: Path, start: int, num_steps: int, *, quiet: bool = False):
        self.workdir, self.num_steps = workdir, num_steps
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        columns = [
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[terms]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        ]
        interactive = self.console.is_terminal
        self.bar = Progress(*columns, console=self.console, disable=not interactive, expand=True)
        self.task = self.bar.add_task("train", total=num_steps, completed=start, terms="compiling …")
        truncate_metrics(workdir / "metrics.jsonl", start)
        self.tensorboard = SummaryWriter(str(workdir), purge_step=start + 1, write_to_disk=True)
        self.wandb_pages: list[Any] = []
        self.started_at, self.start = time.perf_counter(), start
        self.last_logged_at, self.num_tokens = self.started_at, 0

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()
        self.tensorboard.close()
        for page in self.wandb_pages:
            page.finish()

    def add_wandb(self, project: str, config: Any) -> None:
        """Logs from now on to Weights & Biases too, to the same page each time the run is resumed."""
        self.wandb_pages.append(wandb_page(project, self.workdir, config))

    def count_step(self, step: int, num_tokens: int) -> None:
        """Counts one finished step and its tokens."""
        self.num_tokens += num_tokens
        self.bar.update(self.task, completed=step)

    def log_step(self, step: int, values: dict[str, float]) -> None:
        """Logs the terms of the loss, and the tokens per second since the last call."""
        now = time.perf_counter()
        values = values | {"tokens_per_second": round(self.num_tokens / max(now - self.last_logged_at, 1e-9))}
        self.last_logged_at, self.num_tokens = now, 0
        self.record(step, values)
        terms = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
        self.bar.update(self.task, terms=terms.replace("tokens_per_second", "tok/s"))
        if not self.console.is_terminal:
            seconds_per_step = (now - self.started_at) / max(step - self.start, 1)
            remaining = time.strftime("%H:%M:%S", time.gmtime(seconds_per_step * (self.num_steps - step)))
            self.say(f"step {step}/{self.num_steps}  {terms}  left {remaining}")

    def record(self, step: int, values: dict[str, float]) -> None:
        """Appends a line to metrics.jsonl, `step` first, and logs the finite values to TensorBoard."""
        with open(self.workdir / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for name, value in finite.items():
            self.tensorboard.add_scalar(name, value, step)
        for page in self.wandb_pages:
            page.log(finite, step=step)

    def log_samples(self, step: int, texts: list[str]) -> None:
        """Writes sample texts to samples/STEP.txt and prints three of them."""
        folder = self.workdir / "samples"
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{step}.txt", "".join(one_line(text) + "\n" for text in texts))
        for text in texts[:3]:
            self.say(f"  [{step}] {one_line(text)}")

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        self.console.print(escape(text))

    def draw_curve(self) -> None:
        """Draws loss.png from metrics.jsonl."""
        draw_curve(self.workdir)


def draw_curve(workdir: Path) -> None:
    """Draws the training and validation loss over steps as loss.png."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, style in (
        ("loss", {"color": "0.7", "lw": 1}),
        ("valid_loss", {"color": "C0", "marker": "o", "ms": 3}),
    ):
        points = [(row["step"], row[name]) for row in rows if name in row and math.isfinite(row[name])]
        if points:
            axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), **style)
    axes.set(xlabel="step", ylabel="loss")
    axes.set_title(workdir.name, parse_math=False)  # as it is written, even with $
    axes.legend()
    figure.savefig(workdir / "loss.png", dpi=120)


def wandb_page(project: str, workdir: Path, config: Any) -> Any:
    """Returns the page of a run in a Weights & Biases project. Raises ImportError if the package is not installed."""
    wandb = importlib.import_module("wandb")
    id_file = workdir / "wandb_id"
    if not id_file.is_file():
        write_atomically(id_file, uuid.uuid4().hex)
    return wandb.init(
        project=project,
        name=workdir.name,
        id=id_file.read_text(encoding="utf-8"),
        resume="allow",
        dir=str(workdir),
        config=json.loads(to_json(config)),
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
