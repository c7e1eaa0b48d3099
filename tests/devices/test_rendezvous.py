"""The handshake of processes: all connect, or all get a one-line error, and none waits forever."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from jtextdiff.cli.arguments import Parser
from jtextdiff.cli.errors import UserError
from jtextdiff.devices.distributed import add_process_flags, join_processes
from jtextdiff.devices.rendezvous import handshake


@pytest.fixture
def address() -> tuple[str, int]:
    with socket.create_server(("localhost", 0)) as free:
        return "localhost", free.getsockname()[1]


def all_of(*calls: Callable[[], None]) -> list[str]:
    """Makes all calls at once and returns the message that each raises, "" if none."""
    messages = [""] * len(calls)

    def run(index: int, call: Callable[[], None]) -> None:
        try:
            call()
        except (UserError, OSError) as error:
            messages[index] = str(error)

    threads = [threading.Thread(target=run, args=numbered) for numbered in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return messages


def test_all_connect_in_any_order(address: tuple[str, int]) -> None:
    calls = [lambda process=process: handshake(address, 3, process, 10) for process in (2, 0, 1)]
    assert all_of(*calls) == ["", "", ""]
    assert all_of(*calls) == ["", "", ""], "the port is free again at once"


def test_connections_of_other_programs_are_ignored(address: tuple[str, int]) -> None:
    def stranger() -> None:
        for message in (b"GET / HTTP/1.1\r\n\n", b"[]\n", b""):
            for _ in range(50):
                try:
                    with socket.create_connection(address) as connection:
                        connection.sendall(message)
                    break
                except OSError:
                    time.sleep(0.05)

    def late() -> None:
        time.sleep(0.5)
        handshake(address, 2, 1, 10)

    assert all_of(lambda: handshake(address, 2, 0, 10), stranger, late)[::2] == ["", ""]


def test_missing_processes_are_named_to_the_others(address: tuple[str, int]) -> None:
    first, second = all_of(lambda: handshake(address, 4, 0, 1.5), lambda: handshake(address, 4, 2, 1.5))
    assert first == second == f"Processes 1, 3 of 4 did not connect to localhost:{address[1]} within 2 s."


def test_different_numbers_of_processes_are_reported_to_both(address: tuple[str, int]) -> None:
    first, second = all_of(lambda: handshake(address, 2, 0, 10), lambda: handshake(address, 3, 1, 10))
    assert first == second
    assert first == (
        "Process 0 was given --num_processes 2, process 1 was given 3: the number must be the same for all."
    )


def test_different_work_is_reported_to_both(address: tuple[str, int]) -> None:
    """Another config would hang or, worse, silently train parameters that differ."""
    messages = all_of(lambda: handshake(address, 2, 0, 10, "this"), lambda: handshake(address, 2, 1, 10, "that"))
    assert set(messages) == {"Process 1 was given another command, config or version of jtextdiff than process 0."}


def test_two_processes_with_one_number_are_rejected(address: tuple[str, int]) -> None:
    messages = all_of(*[lambda process=process: handshake(address, 3, process, 10) for process in (0, 1, 1)])
    assert set(messages) == {"Two processes have --process_id 1: each process needs its own."}


def test_a_port_in_use_is_reported() -> None:
    with (
        socket.create_server(("localhost", 0)) as server,
        pytest.raises(OSError, match=r"cannot listen at port \d+ of localhost: Address already in use"),
    ):
        handshake(("localhost", server.getsockname()[1]), 2, 0, 1)


def test_an_address_without_a_listener_gives_up(address: tuple[str, int]) -> None:
    with pytest.raises(OSError, match=r"Process 1 could not reach process 0 at localhost:\d+ within 1 s .*refused"):
        handshake(address, 2, 1, 1)
    with pytest.raises(OSError, match="could not reach process 0 at no.such.host.invalid:1"):
        handshake(("no.such.host.invalid", 1), 2, 1, 0.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--num_processes 2", "missing: --coordinator, --process_id"),
        ("--coordinator here --num_processes 2 --process_id 0", "HOST:PORT, such as"),
        ("--coordinator here:0 --num_processes 2 --process_id 0", "HOST:PORT, such as"),
        ("--coordinator here:1 --num_processes 2 --process_id 2", "got 2 of 2"),
        ("--coordinator here:1 --num_processes -2 --process_id -3", "got -3 of -2"),
    ],
)
def test_invalid_flags_are_one_line(given: str, message: str) -> None:
    parser = Parser()
    add_process_flags(parser)
    with pytest.raises(UserError, match=message):
        join_processes(parser.parse_args(given.split()))


def test_a_single_process_joins_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = Parser()
    add_process_flags(parser)
    join_processes(parser.parse_args([]))
    monkeypatch.setenv("SLURM_PROCID", "0")  # set by Slurm in the batch script itself
    join_processes(parser.parse_args([]))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # and srun to a single task
    join_processes(parser.parse_args([]))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match="missing: --coordinator"):
        join_processes(parser.parse_args([]))


def test_a_long_wait_says_what_it_is_for(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jtextdiff.devices.rendezvous.NOTICE_AFTER", 0.1)
    host, port = address
    all_of(lambda: handshake(address, 3, 1, 0.8))
    assert capsys.readouterr().err == (
        f"Waiting for process 0 at {host}:{port} (Connection refused), for 1 s at most (--join_timeout).\n"
    )
    all_of(lambda: handshake(address, 3, 0, 0.8))
    assert f"Waiting for Processes 1, 2 of 3 to connect to {host}:{port}, for 1 s" in capsys.readouterr().err
