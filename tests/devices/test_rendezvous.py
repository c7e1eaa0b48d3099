"""A rendezvous: all come or all are told why not, in a line, and nobody waits for ever."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from jtextdiff.cli.arguments import Parser
from jtextdiff.cli.errors import UserError
from jtextdiff.devices.distributed import add_processes, join
from jtextdiff.devices.rendezvous import meet


@pytest.fixture
def address() -> tuple[str, int]:
    with socket.create_server(("localhost", 0)) as free:
        return "localhost", free.getsockname()[1]


def all_of(*calls: Callable[[], None]) -> list[str]:
    """What each of the calls, made at once, raises: "" if nothing."""
    told = [""] * len(calls)

    def note(place: int, call: Callable[[], None]) -> None:
        try:
            call()
        except (UserError, OSError) as error:
            told[place] = str(error)

    threads = [threading.Thread(target=note, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return told


def test_all_meet_in_any_order(address: tuple[str, int]) -> None:
    calls = [lambda process=process: meet(address, 3, process, 10) for process in (2, 0, 1)]
    assert all_of(*calls) == ["", "", ""]
    assert all_of(*calls) == ["", "", ""], "the port is free again at once"


def test_a_stranger_at_the_door_is_left_alone(address: tuple[str, int]) -> None:
    def stranger() -> None:
        for said in (b"GET / HTTP/1.1\r\n\n", b"[]\n", b""):
            for _ in range(50):
                try:
                    with socket.create_connection(address) as door:
                        door.sendall(said)
                    break
                except OSError:
                    time.sleep(0.05)

    def late() -> None:
        time.sleep(0.5)
        meet(address, 2, 1, 10)

    assert all_of(lambda: meet(address, 2, 0, 10), stranger, late)[::2] == ["", ""]


def test_who_does_not_come_is_named_to_those_who_did(address: tuple[str, int]) -> None:
    first, second = all_of(lambda: meet(address, 4, 0, 1.5), lambda: meet(address, 4, 2, 1.5))
    assert first == second == f"After 2 s processes 1, 3 of 4 did not come to localhost:{address[1]}."


def test_different_numbers_of_processes_are_told_to_both(address: tuple[str, int]) -> None:
    first, second = all_of(lambda: meet(address, 2, 0, 10), lambda: meet(address, 3, 1, 10))
    assert first == second
    assert first == "Process 0 was told of 2 processes, process 1 of 3: --num_processes must be the same."


def test_different_things_to_do_are_told_to_both(address: tuple[str, int]) -> None:
    """Another config would hang or, worse, train on in silence with parameters that differ."""
    told = all_of(lambda: meet(address, 2, 0, 10, "this"), lambda: meet(address, 2, 1, 10, "that"))
    assert set(told) == {"Process 1 was given another command, config or version of jtextdiff than process 0."}


def test_two_of_one_number_are_refused(address: tuple[str, int]) -> None:
    told = all_of(*[lambda process=process: meet(address, 3, process, 10) for process in (0, 1, 1)])
    assert set(told) == {"There are two processes of number 1: --process_id must be another for each."}


def test_a_port_in_use_is_told() -> None:
    with (
        socket.create_server(("localhost", 0)) as taken,
        pytest.raises(OSError, match=r"cannot listen at port \d+ of localhost: Address already in use"),
    ):
        meet(("localhost", taken.getsockname()[1]), 2, 0, 1)


def test_an_address_at_which_nobody_is_gives_up(address: tuple[str, int]) -> None:
    with pytest.raises(OSError, match=r"Process 1 could not reach process 0 at localhost:\d+ within 1 s .*refused"):
        meet(address, 2, 1, 1)
    with pytest.raises(OSError, match="could not reach process 0 at no.such.host.invalid:1"):
        meet(("no.such.host.invalid", 1), 2, 1, 0.5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--num_processes 2", "missing: --coordinator, --process_id"),
        ("--coordinator here --num_processes 2 --process_id 0", "HOST:PORT, such as"),
        ("--coordinator here:0 --num_processes 2 --process_id 0", "HOST:PORT, such as"),
        ("--coordinator here:1 --num_processes 2 --process_id 2", "got 2 of 2"),
        ("--coordinator here:1 --num_processes -2 --process_id -3", "got -3 of -2"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(given: str, told: str) -> None:
    parser = Parser()
    add_processes(parser)
    with pytest.raises(UserError, match=told):
        join(parser.parse_args(given.split()))


def test_one_process_alone_joins_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = Parser()
    add_processes(parser)
    join(parser.parse_args([]))
    monkeypatch.setenv("SLURM_PROCID", "0")  # as Slurm says to a batch script itself
    join(parser.parse_args([]))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # and srun to a single task
    join(parser.parse_args([]))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match="missing: --coordinator"):
        join(parser.parse_args([]))
