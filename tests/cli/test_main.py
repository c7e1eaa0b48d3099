"""What is printed about a failure, and its exit status."""

import errno

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import outcome


def test_a_message_about_a_very_long_input_is_short() -> None:
    status, [line] = outcome(UserError(f"--num {'9' * 10_000} is no number of texts."))
    assert status == 2 and len(line) < 2000
    assert line.startswith("error: --num 999") and line.endswith("is no number of texts.")


def test_a_name_that_no_file_can_have_is_the_users_mistake(tmp_path) -> None:
    with pytest.raises(OSError) as raised:
        (tmp_path / ("x" * 300)).stat()
    status, [line] = outcome(raised.value)
    assert status == 2 and "too long for the name of a file" in line
    of_two, of_none = OSError(errno.ENAMETOOLONG, "", "short", None, "long"), OSError(errno.ENAMETOOLONG, "")
    for error, name in ((of_two, "long"), (of_none, "a name")):
        assert outcome(error) == (2, [f"error: {name} is too long for the name of a file."])


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")]
)
def test_too_little_memory_is_no_traceback(error: Exception) -> None:
    status, lines = outcome(error)
    assert status == 1 and lines[0].startswith("error: out of memory") and "batch_size" in lines[1]
