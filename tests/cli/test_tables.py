"""Tables fit their width, break no word, and show every value."""

import pytest

from jtextdiff.cli.tables import ScoreRow, format_value, markdown_table, output_width, score_table

LONG = "control_success[tree=(core (cost x) (noun x)) and food=Japanese]"
ROWS = [
    ScoreRow("nll", ["13.76 ± 0.085", "13.76", "13.6"], "nats/token", "continuous-time bound, 32 times a text"),
    ScoreRow("word_perplexity", ["9.456e+05 ± 8e+04", "9.456e+05", ""], "per word, end counted", "a bound"),
    ScoreRow("generative_perplexity", ["17.1", "5.4", "4.6"], "per token", "continuous-time bound, 32 times a text"),
    ScoreRow(LONG, ["0.5 ± 0.1", "0.25", "0.125"], "share", "food by " + "phrases of train, " * 12 + "and the grammar"),
]
COLUMNS = ["value ± se", "real valid", "real train"]


def words(lines: list[str]) -> list[str]:
    return " ".join(lines).split()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_lines_fit_and_nothing_is_lost(width: int) -> None:
    lines = score_table("DiffusionLM at step 40: 16 samples, 6 calls each", COLUMNS, ROWS, width)
    assert max(map(len, lines)) <= width
    shown_words = words(lines)
    for row in ROWS:
        for text in (row.name, *row.cells, row.unit, row.kind):
            assert [word for word in text.split() if word not in shown_words] == []


def test_a_score_is_one_line_at_80_columns() -> None:
    lines = score_table("title", COLUMNS, ROWS[:3], 80)
    assert lines[2:8] == [
        "                                          real       real",
        "score                  value ± se         valid      train  unit",
        "nll                    13.76 ± 0.085      13.76      13.6   nats/token [1]",
        "word_perplexity        9.456e+05 ± 8e+04  9.456e+05         per word, end",
        "                                                            counted [2]",
        "generative_perplexity  17.1               5.4        4.6    per token [1]",
    ]
    assert lines[9:] == ["[1] continuous-time bound, 32 times a text", "[2] a bound"]


def test_a_name_that_is_too_long_has_a_line_of_its_own() -> None:
    lines = score_table("title", COLUMNS, ROWS, 80)
    start = lines.index(LONG)
    assert lines[start + 1].split()[:4] == ["0.5", "±", "0.1", "0.25"]
    assert lines[start + 1].startswith(" " * 10)


def test_values_have_four_digits_and_errors_two() -> None:
    assert [format_value(None), format_value(0.123456), format_value(12.3456, 0.0456)] == [
        "",
        "0.1235",
        "12.35 ± 0.046",
    ]


def test_markdown_columns_are_aligned() -> None:
    assert markdown_table(["a", "metric"], [["1 ± 2", "x"]]) == [
        "| a     | metric |",
        "|-------|--------|",
        "| 1 ± 2 | x      |",
    ]


def test_the_width_is_that_of_the_terminal_or_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe:
        def fileno(self) -> int:
            raise OSError

    monkeypatch.delenv("COLUMNS", raising=False)
    assert output_width(Pipe()) == 80  # pyright: ignore
    monkeypatch.setenv("COLUMNS", "123")
    assert output_width(Pipe()) == 123  # pyright: ignore
