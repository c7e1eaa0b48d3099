"""Signals, terminals that are gone and pipes without a reader: the list of what stops a run."""

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from support.runs import metrics, toy, write_texts

from jtextdiff.cli.errors import Interrupted
from jtextdiff.cli.output import say
from jtextdiff.run.config_files import load_config
from jtextdiff.train import start, train_model
from jtextdiff.training import signals
from jtextdiff.training.signals import stop_signals

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@contextlib.contextmanager
def lost_reader() -> Iterator[TextIO]:
    """Yields a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, encoding="utf-8") as pipe:
        yield pipe


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_collected_and_its_handler_comes_back(number: signal.Signals) -> None:
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, default)  # it may be ignored where the tests run in the background
    try:
        with stop_signals() as stopped:
            assert not stopped
            for _ in range(2):  # the second comes at once, as to a process and its whole group
                os.kill(os.getpid(), number)
        assert stopped == [number] and signal.getsignal(number) == default
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_second_signal_acts_as_before(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SAME_SIGNAL", 0.0)
    seen: list[int] = []
    before = signal.signal(number, lambda which, frame: seen.append(which))
    try:
        with stop_signals() as stopped:
            for _ in range(2):
                os.kill(os.getpid(), number)
                time.sleep(0.01)
        assert (stopped, seen) == ([number], [number])
    finally:
        signal.signal(number, before)


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stopped == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_pipe_without_a_reader_is_a_stop() -> None:
    with lost_reader() as pipe, contextlib.redirect_stderr(pipe), stop_signals() as stopped:
        for _ in range(3):
            print("a message", file=sys.stderr)
    assert stopped == [signal.SIGPIPE]


def test_messages_to_a_terminal_that_is_gone_are_dropped() -> None:
    primary, terminal = os.openpty()
    with open(terminal, "w", buffering=1, encoding="utf-8") as stderr, contextlib.redirect_stderr(stderr):
        os.close(primary)
        say("dropped here too")
        with stop_signals() as stopped:
            print("a message", file=sys.stderr)
    assert stopped == []


def test_other_failures_to_write_are_raised() -> None:
    with (
        contextlib.suppress(OSError),  # when the file is closed
        open("/dev/full", "w", buffering=1) as full,
        contextlib.redirect_stderr(full),
        stop_signals(),
        pytest.raises(OSError, match="No space"),
    ):
        print("a message", file=sys.stderr)


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path)
    return toy("run", 3)


@pytest.mark.slow
def test_a_run_whose_messages_nobody_reads_is_saved(flags: list[str], tmp_path: Path) -> None:
    config = load_config(flags[0].removeprefix("--config="), flags[2:])
    with lost_reader() as pipe, contextlib.redirect_stderr(pipe), pytest.raises(Interrupted) as stop:
        start(config, tmp_path / "run")
    assert stop.value.status == 128 + signal.SIGPIPE
    last = metrics(tmp_path / "run")[-1]["step"]
    assert (tmp_path / "run" / "checkpoints" / str(last)).is_dir()


def test_a_run_trains_in_a_thread(flags: list[str], tmp_path: Path) -> None:
    """As in a web application, whose main thread has the signals."""
    failures: list[BaseException] = []

    def train() -> None:
        try:
            overrides = [flag.removeprefix("--config.") for flag in flags[2:]]
            train_model(flags[0].removeprefix("--config="), overrides, workdir=tmp_path / "run")
        except BaseException as error:
            failures.append(error)

    with contextlib.redirect_stderr(io.StringIO()):
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    assert not failures and (tmp_path / "run" / "checkpoints" / "3").is_dir()


def test_a_signal_after_a_lost_pipe_acts_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SAME_SIGNAL", 0.0)
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with lost_reader() as pipe, contextlib.redirect_stderr(pipe), stop_signals() as stopped:
            say("lost")
            time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
        assert (stopped, seen) == ([signal.SIGPIPE], [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, before)
