"""A text is one line of output, whatever characters it has, and a line of JSON gives them back."""

import json
import sys

from jtextdiff.cli.output import one_line, to_json_text, write_result

EVERY = "".join(map(chr, range(sys.maxunicode, -1, -1)))  # so that no two surrogates are a character
ORDINARY = "a\tb é 中 \u00a0\u3000\u200d\U0001f600"


def test_no_character_ends_a_line_or_reaches_the_terminal_as_a_command() -> None:
    line = one_line(EVERY)
    assert line.splitlines() == [line] and line.encode()
    assert [c for c in line if ord(c) < 32 or 127 <= ord(c) < 160] == ["\t"]
    assert one_line(ORDINARY) == ORDINARY
    assert one_line("\\n\n\r\x1b[2J\u2028\ud800") == r"\\n\n\r\x1b[2J\u2028\ud800"


def test_json_is_one_line_with_every_character_in_it() -> None:
    line = to_json_text({"text": EVERY})
    assert line.splitlines() == [line] and line.encode() and json.loads(line) == {"text": EVERY}
    assert to_json_text([ORDINARY]) == json.dumps([ORDINARY], ensure_ascii=False)


def test_a_result_with_half_a_character_is_written(tmp_path) -> None:
    write_result({"control": "\ud800"}, str(tmp_path / "scores.json"))
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == {"control": "\ud800"}
