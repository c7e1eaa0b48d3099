"""Reports: what a training run tells while it lasts, on the terminal, in files and as a curve."""

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

from jtextdiff.cli.output import one_line, write_whole
from jtextdiff.run.config import to_json
from jtextdiff.run.workdir import truncate_metrics


class Report:
    """A progress bar on stderr (plain lines where that is no terminal), metrics.jsonl, TensorBoard, loss.png.

    `quiet`: nothing on stderr.
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
        self.board = SummaryWriter(str(workdir), purge_step=start + 1, write_to_disk=True)
        self.more: list[Any] = []
        self.clock, self.tokens = time.perf_counter(), 0
        self.begun, self.start = self.clock, start

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()
        self.board.close()
        for board in self.more:
            board.finish()

    def also_to(self, project: str, config: Any) -> None:
        """Logs from here on to Weights & Biases too, to one page there however often the run is resumed."""
        self.more.append(wandb_page(project, self.workdir, config))

    def step(self, step: int, tokens: int) -> None:
        """Counts one finished step and its tokens."""
        self.tokens += tokens
        self.bar.update(self.task, completed=step)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Logs the terms of the loss, with the tokens a second since the last time."""
        now = time.perf_counter()
        values = values | {"tokens_per_second": round(self.tokens / max(now - self.clock, 1e-9))}
        self.clock, self.tokens = now, 0
        self.record(step, values)
        terms = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
        self.bar.update(self.task, terms=terms.replace("tokens_per_second", "tok/s"))
        if not self.console.is_terminal:
            pace = (now - self.begun) / max(step - self.start, 1)
            left = time.strftime("%H:%M:%S", time.gmtime(pace * (self.num_steps - step)))
            self.say(f"step {step}/{self.num_steps}  {terms}  left {left}")

    def record(self, step: int, values: dict[str, float]) -> None:
        """One flushed line of metrics.jsonl, `step` first, and the same to TensorBoard."""
        with open(self.workdir / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for name, value in finite.items():
            self.board.add_scalar(name, value, step)
        for board in self.more:
            board.log(finite, step=step)

    def samples(self, step: int, texts: list[str]) -> None:
        """Keeps sample texts as samples/STEP.txt and shows a few."""
        folder = self.workdir / "samples"
        folder.mkdir(exist_ok=True)
        write_whole(folder / f"{step}.txt", "".join(one_line(text) + "\n" for text in texts))
        for text in texts[:3]:
            self.say(f"  [{step}] {one_line(text)}")

    def say(self, text: str) -> None:
        self.console.print(escape(text))

    def curve(self) -> None:
        """Draws loss.png from metrics.jsonl."""
        draw_curve(self.workdir)


def draw_curve(workdir: Path) -> None:
    """loss.png: the loss of training and of validation text over steps."""
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
    axes.set(xlabel="step", ylabel="loss", title=workdir.name)
    axes.legend()
    figure.savefig(workdir / "loss.png", dpi=120)


def wandb_page(project: str, workdir: Path, config: Any) -> Any:
    """The page of a run in a project of Weights & Biases. Raises ImportError if its package is not installed."""
    wandb = importlib.import_module("wandb")
    known = workdir / "wandb_id"
    if not known.is_file():
        write_whole(known, uuid.uuid4().hex)
    return wandb.init(
        project=project,
        name=workdir.name,
        id=known.read_text(encoding="utf-8"),
        resume="allow",
        dir=str(workdir),
        config=json.loads(to_json(config)),
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
