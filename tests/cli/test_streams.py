"""What a process does where its locale is not UTF-8, where streams are closed and where arguments are not text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = "Café 中 \U0001f600"
COMMAND = f"""
import sys
from jtextdiff.cli.main import main
from jtextdiff.cli.output import say

def command(arguments):
    with open("result.txt", "w") as file:
        say({ascii(TEXT)})
        print({ascii(TEXT)}, *arguments)
        import os; os.write(2, b"a message of a C library")
    sys.stderr.flush()

main(command)
"""
ENCODINGS = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "utf-8:strict"},
]


def process(folder: Path, redirection: str, *arguments: str | bytes, **environment: str):
    root = str(Path(__file__).parents[2])
    command = ["sh", "-c", f'"$0" -c "$@" {redirection}', sys.executable, COMMAND, *arguments]
    env = os.environ | {"PYTHONPATH": root} | environment
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=60)


@pytest.mark.parametrize("environment", ENCODINGS, ids=lambda names: " ".join(f"{k}={v}" for k, v in names.items()))
def test_results_are_utf8_in_every_locale(tmp_path: Path, environment: dict[str, str]) -> None:
    done = process(tmp_path, "", **environment)
    assert (done.returncode, done.stdout.decode()) == (0, TEXT + "\n"), done.stderr


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_closed_stream_gets_nothing_and_no_file_gets_its_output(tmp_path: Path, redirection: str) -> None:
    """Messages go to no other stream, and those of libraries not into a file that took the stream's number."""
    done = process(tmp_path, redirection)
    out, errors = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, errors
    assert out == ("" if ">&-" in redirection.split() else TEXT + "\n")
    assert ("library" in errors) == ("2>&-" not in redirection) and "Traceback" not in errors
    assert (tmp_path / "result.txt").read_text() == ""


@pytest.mark.parametrize("environment", [{}, ENCODINGS[0]])
def test_an_argument_that_is_no_text_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    done = process(tmp_path, "", b"--template=caf\xe9", **environment)
    assert done.returncode == 2 and done.stderr.startswith(b"error: the argument --template=caf\\xe9 is not text")
    assert len(done.stderr.splitlines()) == 1
