"""The one reader of lines: what ends a line, what does not, and what is no text."""

import io
import os

import pytest

from jtextdiff.data.lines import lines_of, parse_json, read_lines


def lines(data: bytes) -> list[str]:
    return [line for _, line in read_lines(io.BytesIO(data), "x.txt")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_usual_end_of_a_line_and_no_other_ends_one(end: str) -> None:
    texts = ["a\u2028b\x85c\x0bd\x0ce\x1cf", "", "é中", "last"]
    assert lines(end.join(texts).encode()) == lines((end.join(texts) + end).encode()) == texts


def test_a_byte_order_mark_is_no_part_of_the_first_line_and_stays_elsewhere() -> None:
    assert lines("\ufeffa\n\ufeffb".encode()) == ["a", "\ufeffb"]
    assert lines(b"") == []


def test_a_line_is_there_before_the_next_is_written() -> None:
    """As on a terminal, or from a program that waits for the answer."""
    reading, writing = os.pipe()
    with open(reading, "rb") as stream:
        os.write(writing, b"first\n")
        found = read_lines(stream, "pipe")
        assert next(found) == (1, "first")
        os.write(writing, b"second")
        os.close(writing)
        assert list(found) == [(2, "second")]
        assert not stream.closed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\r\nc\xff\n", "x.txt, line 3: byte 0xff is not UTF-8; .*iconv"),
        (b"a\n\xed\xa0\x80\n", "x.txt, line 2: byte 0xed is not UTF-8"),
        (b"a\nb\0", "x.txt, line 2: the character NUL"),
        ("a\nb".encode("utf-16"), "x.txt, line 1: .*UTF-16.* iconv -f UTF-16"),
        ("米饭".encode("utf-16"), "x.txt, line 1: .*UTF-16.* iconv -f UTF-16"),
        ("é\n".encode("utf-16-be"), "x.txt, line 1: .* iconv -f UTF-16"),
        (b"\xfe\xff" + "米".encode("utf-16-be"), "x.txt, line 1: .* iconv -f UTF-16"),
    ],
)
def test_what_is_no_text_has_its_line(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lines(data)


def test_a_file_that_cannot_be_read_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=f"cannot read {tmp_path}: Is a directory; name a file in it$"):
        list(lines_of(tmp_path))
    with pytest.raises(ValueError, match="cannot read .*none.txt: No such file or directory; check the path$"):
        list(lines_of(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "here: not JSON .*'{'"),
        ("[" * 100_000, "here: too many brackets inside each other"),
        ("1" + "0" * 5000, "here: a number has too many digits"),
        (r'{"\ud800": 1}', r"here: \\ud800 is half of a character"),
    ],
)
def test_json_that_cannot_be_used_has_its_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text, "here")


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert parse_json(r'"\ud83d\ude00"', "here") == "\U0001f600"
