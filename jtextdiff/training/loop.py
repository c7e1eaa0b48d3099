"""The training loop: prepare, resume, and then step, report, evaluate, show, save until the last step."""

import contextlib
import functools
import math
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from jtextdiff.cli.errors import Interrupted, UserError
from jtextdiff.cli.output import say
from jtextdiff.control.trained import home_of
from jtextdiff.data.batches import Batch, batch_at, batches
from jtextdiff.data.corpus import Corpus
from jtextdiff.devices.compilation_cache import remember_programs
from jtextdiff.devices.multihost import check_shared, heard_by_all, is_first, wait_for_all
from jtextdiff.devices.profiler import traced
from jtextdiff.devices.sharding import on_mesh, place, replicated, rows_here
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.latents import collapse_warning
from jtextdiff.methods.method import Latent, Method, Monitored, Trainable
from jtextdiff.run import checkpoints
from jtextdiff.run.config import Config
from jtextdiff.run.workdir import agree
from jtextdiff.training.logger import Report
from jtextdiff.training.setup import introduce, plan, restore_or_init
from jtextdiff.training.train_step import TrainState, compiled_step, without_dropout

Late = tuple[int, dict[str, Array]] | None
"""A step and its metrics, not yet read."""

EVALUATED_ROWS = 512
SHOWN_SAMPLES = 8


def train(
    config: Config, workdir: Path, stopped: list[int], *, profile: bool = False, wandb: str | None = None
) -> None:
    """Trains in `workdir` up to `config.num_steps`, going on from its newest checkpoint if it has one.

    `stopped` receives a signal's number when the run is asked to stop: it then saves and raises Interrupted. Of many
    processes all call this alike, and all stop at the same step if one of them is asked to. `profile`: ten steps are
    traced; `wandb`: the project to which metrics go as well.
    """
    remember_programs()
    make, state, start = prepare(config, workdir)
    if start >= config.num_steps:
        say(f"{workdir} has already reached step {start}. To train on: --config.num_steps=N with N above {start}.")
        return
    if is_first():
        checkpoints.set_aside_after(workdir, start)
    wait_for_all("later checkpoints are set aside")
    with contextlib.ExitStack() as opened:
        manager = opened.enter_context(checkpoints.open_checkpoints(workdir))
        # What the other processes have to report is the same, and goes nowhere.
        told = workdir if is_first() else Path(opened.enter_context(tempfile.TemporaryDirectory()))
        report = opened.enter_context(Report(told, start, config.num_steps, quiet=not is_first()))
        if wandb and is_first():
            report.also_to(wandb, config)
        trace = (
            opened.enter_context(traced(workdir / "profile", start)) if profile and is_first() else lambda done: None
        )
        _walk(make(report=report, kept=manager.latest_step, trace=trace), state, start, manager, stopped)
    say(f"Done. Look at {workdir}/loss.png; {_next(config, workdir)}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a step needs beside the state, which is not in it."""

    config: Config
    workdir: Path
    method: Trainable
    corpus: Corpus
    root: Key[Array, ""]
    step: Callable[..., Any]
    losses: Callable[..., Any]
    place: Callable[[Batch], Batch]
    mesh: Mesh
    mine: Int[np.ndarray, "m"]  # the rows of a batch that this process reads
    report: Report
    kept: Callable[[], int | None] = lambda: None  # the newest checkpoint's step
    trace: Callable[[int], None] = lambda done: None  # told of every step that is done


def prepare(config: Config, workdir: Path) -> tuple[Callable[..., Run], TrainState, int]:
    """The run of a config, but for its report; the state to go on from, and the steps done to reach it."""
    ready = plan(config, workdir)
    config, mesh = ready.config, ready.mesh
    if is_first():
        agree(workdir, config, resumed=checkpoints.has_checkpoints(workdir))
        ready.corpus.tokenizer.save(workdir / "tokenizer")
    check_shared(workdir)
    introduce(ready, workdir)
    state, start = restore_or_init(ready, workdir)
    make = functools.partial(
        Run,
        config=config,
        workdir=workdir,
        method=ready.method,
        corpus=ready.corpus,
        root=jax.jit(functools.partial(jax.random.key, config.seed), out_shardings=replicated(mesh))(),
        step=compiled_step(ready.method, ready.optim, mesh, ready.layout),
        losses=jax.jit(on_mesh(without_dropout(ready.method).loss, mesh), out_shardings=replicated(mesh)),
        place=functools.partial(place, mesh=mesh, num=config.batch_size),
        mesh=mesh,
        mine=rows_here(mesh, config.batch_size),
    )
    return make, state, start


def advance(run: Run, state: TrainState, index: int, late: Late) -> tuple[TrainState, Late]:
    """Step `index`, and the report of the one before: metrics are read late, so that the devices never wait."""
    batch = batch_of(run, index)
    placed = run.place(batch)
    with jax.transfer_guard("disallow"):
        state, metrics = run.step(state, run.root, placed)
    _read(run, late)
    share = len(run.mine) / run.config.batch_size
    run.report.step(index + 1, round(int(batch.valid.sum()) / share))
    return state, (index + 1, metrics)


def _walk(run: Run, state: TrainState, start: int, manager: Any, stopped: list[int]) -> None:
    """Steps from `start` to the end."""
    every, num_steps = run.config.every, run.config.num_steps
    asked_to_stop = heard_by_all(run.mesh, stopped)
    late: Late = None
    for done in range(start + 1, num_steps + 1):
        state, late = advance(run, state, done - 1, late)
        run.trace(done)
        last, valid_loss = done == num_steps, math.inf  # the best checkpoint is one of those evaluated
        stop = asked_to_stop()  # looked at once: a signal that comes while a step is being saved stops the next one
        if last or stop or any(done % often == 0 for often in (every.evaluate, every.sample, every.checkpoint)):
            late = _read(run, late)  # what is no number is told before it is shown or saved
        if last or done % every.evaluate == 0:
            valid_loss = _evaluate(run, done, state)
        if last or done % every.sample == 0:
            _show(run, done, state)
        if last or stop or done % every.checkpoint == 0:
            _save(manager, done, state, valid_loss)
        if stop:
            _stop(run, manager, done, *stopped[:1])
    _read(run, late)
    manager.wait_until_finished()


def batch_of(run: Run, index: int) -> Batch:
    """The batch of step `index`, on the host: the rows that this process reads."""
    tokenizer, config = run.corpus.tokenizer, run.config
    batch = batch_at(
        run.corpus.splits["train"],
        index,
        batch_size=config.batch_size,
        buckets=run.corpus.buckets,
        pad=tokenizer.pad,
        seed=config.seed,
        mine=run.mine,
    )
    done = min(index / config.optim.decay_steps, 1.0)
    return batch._replace(progress=np.full(len(batch.tokens), done, np.float32))


def _read(run: Run, late: Late) -> None:
    """Reports the metrics of an earlier step. Raises UserError if one of them is no number."""
    if late is None:
        return
    done, metrics = late
    if bad := [name for name, value in metrics.items() if not math.isfinite(float(value))]:
        kept = run.kept()
        raise UserError(
            f"The training broke down at step {done}: {', '.join(bad)} is not finite. "
            f"{'Nothing was saved' if kept is None else f'The checkpoint of step {kept} is kept'} in {run.workdir}. "
            "Try a smaller optim.peak, a longer optim.warmup or a smaller optim.clip in a new --workdir."
        )
    if done == 1 or done % run.config.every.log == 0:
        run.report.metrics(done, {name: float(value) for name, value in metrics.items()})


def _evaluate(run: Run, done: int, state: TrainState) -> float:
    """Reports the loss of validation text under the mean parameters, with the same noise every time."""
    key, total, rows = jax.random.key(0), {}, 0
    split = run.corpus.splits["valid"]
    size, pad = run.config.batch_size, run.corpus.tokenizer.pad
    some = functools.partial(batches, split, batch_size=size, buckets=run.corpus.buckets, pad=pad, mine=run.mine)
    for batch, real in some(limit=EVALUATED_ROWS):
        loss, terms = run.losses(state["ema"], jax.random.fold_in(key, rows), run.place(batch))
        for name, value in {"loss": loss, **terms}.items():
            total[name] = total.get(name, 0.0) + float(np.asarray(value)[:real].sum())
        rows += real
    values = {f"valid_{name}": value / rows for name, value in total.items()}
    if isinstance(run.method, Monitored):
        watch = jax.jit(run.method.monitor, out_shardings=replicated(run.mesh))
        values |= {name: float(value) for name, value in watch(state["ema"]).items()}
    run.report.record(done, values)
    run.report.say(f"step {done}: " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
    run.report.curve()
    if isinstance(run.method, Latent) and (warning := collapse_warning(values["valid_kl"])):
        say(warning)
    return values["valid_loss"]


def _next(config: Config, workdir: Path) -> str:
    """What shows what a run has learned. A control is found by its place, whose name it has."""
    sample = "sample with: python -m jtextdiff.sample --checkpoint"
    if "base" not in config:
        return f"{sample} {workdir}"
    home = home_of(config.base, workdir.name)
    if workdir.resolve() == home.resolve():
        return f"{sample} {config.base} --control {workdir.name}=VALUE"
    return f"as {config.label}=VALUE it will be found once it is {home_of(config.base, config.label)}."


def _show(run: Run, done: int, state: TrainState) -> None:
    """Writes a few samples of the mean parameters, the same seeds every time."""
    if not isinstance(run.method, Method):
        return
    model = Model(method=run.method, params=state["ema"], tokenizer=run.corpus.tokenizer, config=run.config, step=done)
    run.report.samples(done, model.sample(SHOWN_SAMPLES, seed=run.config.seed))


def _save(manager: Any, done: int, state: TrainState, valid_loss: float) -> None:
    training = {name: part for name, part in state.items() if name != "ema"}
    checkpoints.save(manager, done, state["ema"], training, valid_loss)


def _stop(run: Run, manager: Any, done: int, number: int = signal.SIGTERM) -> None:
    """Ends a run that was asked to stop, after its checkpoint is on disk; `number` is that of the signal, which another
    process may have received."""
    manager.wait_until_finished()
    name = signal.Signals(number).name
    message = f"Stopped by {name} at step {done}; saved in {run.workdir}. To go on from there, the same command:"
    raise Interrupted(message, 128 + number)
