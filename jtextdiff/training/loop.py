"""The training loop: step, log, evaluate, sample and save until the last step."""

import contextlib
import dataclasses
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
from jaxtyping import Array, Int, Key

from jtextdiff.cli.errors import Interrupted, UserError
from jtextdiff.cli.output import say
from jtextdiff.data.batches import Batch, batch_at, batches
from jtextdiff.devices.multihost import any_process_stopped, check_shared_workdir, is_process_zero, wait_for_all
from jtextdiff.devices.profiler import trace_steps
from jtextdiff.devices.sharding import local_row_indices, on_mesh, place_batch, replicated
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.latents import collapse_warnings
from jtextdiff.methods.method import HasDiagnostics, LatentVariableModel, Method
from jtextdiff.run import checkpoints
from jtextdiff.run.config import Config
from jtextdiff.run.workdir import store_config
from jtextdiff.training.compile_ahead import compiled_ahead, step_lengths
from jtextdiff.training.logger import MetricsLogger
from jtextdiff.training.setup import Setup, build_setup, restore_or_init
from jtextdiff.training.summary import how_to_use, print_summary
from jtextdiff.training.train_step import TrainState, compiled_step, without_dropout

PendingMetrics = tuple[int, dict[str, Array]] | None
"""A step and its metrics on the devices, which have not been read yet."""

NUM_EVALUATED = 512
"""Validation sequences whose loss is measured, at most."""

NUM_SAMPLES = 8


def train(
    config: Config, workdir: Path, stopped: list[int], *, profile: bool = False, wandb: str | None = None
) -> None:
    """Trains in `workdir` up to `config.num_steps`, resuming from its newest checkpoint if it has one.

    `stopped` receives a signal's number when the run is to stop: the run then saves and raises Interrupted. With
    several processes, each calls this function, and all stop at the same step if one of them receives a signal.
    `profile`: ten steps are traced. `wandb`: a project of Weights & Biases that receives the metrics too.
    """
    setup = build_setup(config, workdir)
    config = setup.config
    state, start = start_state(setup, workdir)
    if start >= config.num_steps and checkpoints.has_checkpoints(workdir):  # else it imports, and has no steps
        say(f"{workdir} has already reached step {start}. To train on: --config.num_steps=N with N above {start}.")
        return
    if is_process_zero():
        checkpoints.set_aside_after(workdir, start)
    wait_for_all("later checkpoints are set aside")
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(checkpoints.open_checkpoints(workdir))
        # The other processes log the same metrics, to a directory that is deleted.
        log_dir = workdir if is_process_zero() else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        logger = stack.enter_context(MetricsLogger(log_dir, start, config.num_steps, quiet=not is_process_zero()))
        if wandb and is_process_zero():
            logger.add_wandb(wandb, config)
        run = build_run(setup, workdir, logger, newest_checkpoint=manager.latest_step)
        after_step: Callable[[int], None] = lambda done: None
        if profile and is_process_zero():
            after_step = stack.enter_context(trace_steps(workdir / "profile", start))
        if jax.process_count() == 1:  # several processes compile each program together, when all need it
            lengths = step_lengths(setup, start)
            step = stack.enter_context(compiled_ahead(run.step, setup, lengths, logger.say))
            run = dataclasses.replace(run, step=step)
        run_steps(run, state, start, manager, stopped, after_step)
    say(f"Done{f'. Look at {workdir}/loss.png' if config.num_steps else ''}; {how_to_use(config, workdir)}")


def start_state(setup: Setup, workdir: Path) -> tuple[TrainState, int]:
    """Stores the config and tokenizer, prints a summary, and returns the state to continue from and its step."""
    if is_process_zero():
        resumed = checkpoints.has_checkpoints(workdir)
        text = setup.corpus.digests(setup.label)
        store_config(workdir, setup.config, text, resumed=resumed)
        setup.corpus.tokenizer.save(workdir / "tokenizer")
    check_shared_workdir(workdir)
    print_summary(setup, workdir)
    return restore_or_init(setup, workdir)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a step needs besides the state."""

    setup: Setup
    workdir: Path
    key: Key[Array, ""]  # from which the key of each step is derived
    step: Callable[..., Any]  # compiled: (state, key, batch) ↦ state, metrics
    loss: Callable[..., Any]  # compiled, without dropout: (params, key, batch) ↦ loss, terms
    local_rows: Int[np.ndarray, "m"]  # the rows of a batch that this process reads
    logger: MetricsLogger
    newest_checkpoint: Callable[[], int | None]  # its step

    def place(self, batch: Batch) -> Batch:
        """Puts this process's rows of a batch on the devices."""
        return place_batch(batch, mesh=self.setup.mesh, num=self.setup.config.batch_size)


def build_run(
    setup: Setup,
    workdir: Path,
    logger: MetricsLogger,
    *,
    newest_checkpoint: Callable[[], int | None] = lambda: None,
) -> Run:
    """Returns the run of a setup, with its functions ready to be compiled."""
    mesh, seed = setup.mesh, setup.config.seed
    return Run(
        setup=setup,
        workdir=workdir,
        key=jax.jit(functools.partial(jax.random.key, seed), out_shardings=replicated(mesh))(),
        step=compiled_step(setup.method, setup.optimizer, mesh, setup.layout),
        loss=jax.jit(on_mesh(without_dropout(setup.method).loss, mesh), out_shardings=replicated(mesh)),
        local_rows=local_row_indices(mesh, setup.config.batch_size),
        logger=logger,
        newest_checkpoint=newest_checkpoint,
    )


def run_steps(
    run: Run,
    state: TrainState,
    start: int,
    manager: Any,
    stopped: list[int],
    after_step: Callable[[int], None] = lambda done: None,
) -> None:
    """Trains from step `start` to the last one. `after_step` is called with the number of each finished step."""
    intervals, num_steps = run.setup.config.every, run.setup.config.num_steps
    state_intervals = (intervals.evaluate, intervals.sample, intervals.checkpoint)
    any_stopped = any_process_stopped(run.setup.mesh, stopped)
    pending: PendingMetrics = None
    if start == 0 and run.setup.config.get("init"):
        checkpoints.save(manager, 0, *_parts(state), math.inf)  # the imported parameters
    for done in range(start + 1, num_steps + 1):
        state, pending = dispatch_step(run, state, done - 1, pending)
        after_step(done)
        last, valid_loss = done == num_steps, math.inf  # the best checkpoint is chosen among those evaluated
        stop = any_stopped()  # read once: a signal that arrives while a step is being saved stops the next one
        if last or stop or any(done % interval == 0 for interval in state_intervals):
            log_metrics(run, pending)  # raises if a metric is not finite, before anything is saved
            pending = None
        if last or done % intervals.evaluate == 0:
            valid_loss = _evaluate(run, done, state)
        if last or done % intervals.sample == 0:
            _log_samples(run, done, state)
        if last or stop or done % intervals.checkpoint == 0:
            checkpoints.save(manager, done, *_parts(state), valid_loss)
        if stop:
            _stop(run, manager, done, state, *stopped[:1])
    log_metrics(run, pending)
    checkpoints.confirm_newest(manager, *_parts(state))


def dispatch_step(
    run: Run, state: TrainState, index: int, pending: PendingMetrics
) -> tuple[TrainState, PendingMetrics]:
    """Starts step `index` and logs the metrics of the one before: reading them late keeps the devices busy."""
    batch = train_batch(run, index)
    placed = run.place(batch)
    with jax.transfer_guard("disallow"):
        state, metrics = run.step(state, run.key, placed)
    log_metrics(run, pending)
    local_share = len(run.local_rows) / run.setup.config.batch_size
    run.logger.count_step(index + 1, round(int(batch.valid.sum()) / local_share))
    return state, (index + 1, metrics)


def train_batch(run: Run, index: int) -> Batch:
    """Returns the batch of step `index` on the host: the rows that this process reads."""
    corpus, config = run.setup.corpus, run.setup.config
    batch = batch_at(
        corpus.splits["train"],
        index,
        batch_size=config.batch_size,
        buckets=corpus.buckets,
        pad=corpus.tokenizer.pad,
        seed=config.seed,
        local_rows=run.local_rows,
    )
    progress = min(index / config.optim.decay_steps, 1.0)
    return batch._replace(progress=np.full(len(batch.tokens), progress, np.float32))


def log_metrics(run: Run, pending: PendingMetrics) -> None:
    """Logs the metrics of an earlier step. Raises UserError if a metric is not finite."""
    if pending is None:
        return
    done, metrics = pending
    if bad := [name for name, value in metrics.items() if not math.isfinite(float(value))]:
        newest = run.newest_checkpoint()
        saved = "Nothing was saved" if newest is None else f"The checkpoint of step {newest} is kept"
        raise UserError(
            f"The training broke down at step {done}: {', '.join(bad)} is not finite. "
            f"{saved} in {run.workdir}. "
            "Try a smaller optim.peak, a longer optim.warmup or a smaller optim.clip in a new --workdir."
        )
    if done == 1 or done % run.setup.config.every.log == 0:
        run.logger.log_step(done, {name: float(value) for name, value in metrics.items()})


def _evaluate(run: Run, done: int, state: TrainState) -> float:
    """Logs and returns the validation loss of the averaged parameters, with the same noise every time."""
    setup, key, total, num_rows = run.setup, jax.random.key(0), {}, 0
    valid_batches = batches(
        setup.corpus.splits["valid"],
        batch_size=setup.config.batch_size,
        buckets=setup.corpus.buckets,
        pad=setup.corpus.tokenizer.pad,
        local_rows=run.local_rows,
        limit=NUM_EVALUATED,
    )
    for batch, num_real in valid_batches:
        loss, terms = run.loss(state["ema"], jax.random.fold_in(key, num_rows), run.place(batch))
        for name, value in {"loss": loss, **terms}.items():
            total[name] = total.get(name, 0.0) + float(np.asarray(value)[:num_real].sum())
        num_rows += num_real
    values = {f"valid_{name}": value / num_rows for name, value in total.items()}
    if isinstance(setup.method, HasDiagnostics):
        diagnostics = jax.jit(setup.method.diagnostics, out_shardings=replicated(setup.mesh))
        values |= {name: float(value) for name, value in diagnostics(state["ema"]).items()}
    run.logger.record(done, values)
    run.logger.say(f"step {done}: " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
    run.logger.draw_curve()
    if isinstance(setup.method, LatentVariableModel):
        for warning in collapse_warnings({name: value / num_rows for name, value in total.items()}):
            say(warning)
    return values["valid_loss"]


def _log_samples(run: Run, done: int, state: TrainState) -> None:
    """Logs a few samples of the averaged parameters, with the same seed every time."""
    method, config = run.setup.method, run.setup.config
    if not isinstance(method, Method):
        return
    tokenizer = run.setup.corpus.tokenizer
    model = Model(method=method, params=state["ema"], tokenizer=tokenizer, config=config, step=done)
    run.logger.log_samples(done, model.sample(NUM_SAMPLES, seed=config.seed))


def _parts(state: TrainState) -> tuple[Any, Any]:
    """Returns the two parts of a checkpoint: model and training."""
    return state["ema"], {name: part for name, part in state.items() if name != "ema"}


def _stop(run: Run, manager: Any, done: int, state: TrainState, number: int = signal.SIGTERM) -> None:
    """Raises Interrupted once the checkpoint is on disk; another process may have received the signal `number`."""
    checkpoints.confirm_newest(manager, *_parts(state))
    name = signal.Signals(number).name
    message = f"Stopped by {name} at step {done}; saved in {run.workdir}. To resume from there, run the same command:"
    raise Interrupted(message, 128 + number)
