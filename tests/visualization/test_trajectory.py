"""Trajectories: settled words stay settled, pictures are complete, and no word becomes markup."""

import base64
import hashlib
import html
import io
import json
import random
import re
import time
from collections.abc import Sequence

import pytest
from rich.console import Console

from jtextdiff.visualization.html_page import html_page
from jtextdiff.visualization.png_figure import draw_png
from jtextdiff.visualization.terminal import play
from jtextdiff.visualization.trajectory import (
    Curve,
    Trajectory,
    evenly_spaced,
    printable,
    settled,
    settled_at,
    settled_share,
    subsample,
)

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img onerror=alert(1) src=x>",
    '"><svg onload=alert(1)>',
    "<!--",
    "&lt;",
    "\u2028",
    "'",
    "{title}",
)
TEXT = ["the", "cheap", "pub", "by", "the", "river", "serves", "warm", "food"]
CHINESE = tuple("这家餐厅的菜很好吃")


def flickering(sentences: Sequence[Sequence[str]], num_frames: int, seed: int = 0) -> Trajectory:
    """Every word is sampled anew in each frame up to a random frame, and equals the last word from there on."""
    draws = random.Random(seed)
    vocabulary = [*(word for sentence in sentences for word in sentence), ""]

    def column(word: str) -> list[str]:
        start = draws.randrange(num_frames)
        return [word if f >= start else draws.choice(vocabulary) for f in range(num_frames)]

    words = tuple(tuple(zip(*map(column, sentence), strict=True)) for sentence in sentences)
    times = tuple(1.0 - (f + 1) / num_frames for f in range(num_frames))
    return Trajectory("a title", times, words)


TRAJECTORY = flickering([TEXT, TEXT[:4] + [""] * 3], 40)


def hostile() -> Trajectory:
    trajectory = flickering([list(HOSTILE), TEXT], 12)
    return trajectory._replace(title=HOSTILE[0] + HOSTILE[1])


def test_settled_means_equal_to_the_last_word_from_here_on():
    for frames, flags in zip(TRAJECTORY.words, settled(TRAJECTORY), strict=True):
        for p in range(len(frames[0])):
            for f, flag in enumerate(flags):
                assert flag[p] == all(later[p] == frames[-1][p] for later in frames[f:])


def test_settled_is_monotone_and_ends_whole():
    assert any(any(start > 0 for start in starts) for starts in settled_at(TRAJECTORY))
    for flags in settled(TRAJECTORY):
        assert all(flags[-1])
        for before, after in zip(flags[:-1], flags[1:], strict=True):
            assert all(b <= a for b, a in zip(before, after, strict=True))
    shares = settled_share(TRAJECTORY)
    assert shares[-1] == 1.0 and list(shares) == sorted(shares) and shares[0] < 0.5


def test_a_word_that_comes_and_goes_is_not_settled():
    trajectory = Trajectory("", (0.9, 0.5, 0.2, 0.0), ((("a",), ("b",), ("a",), ("a",)),))
    assert settled(trajectory) == (((False,), (False,), (True,), (True,)),)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 24, 60, 61])
@pytest.mark.parametrize("count", [2, 3, 10, 24, 60])
def test_evenly_spaced_includes_both_ends_in_order(total: int, count: int):
    frames = evenly_spaced(total, count)
    steps = {b - a for a, b in zip(frames[:-1], frames[1:], strict=True)}
    assert frames[0] == 0 and frames[-1] == total - 1 and len(frames) == min(total, count)
    assert all(step > 0 for step in steps) and max(steps, default=1) - min(steps, default=1) <= 1


def test_subsample_keeps_ends_and_order():
    trajectory = subsample(TRAJECTORY, 7)
    assert len(trajectory.times) == 7 and (trajectory.times[0], trajectory.times[-1]) == (
        TRAJECTORY.times[0],
        TRAJECTORY.times[-1],
    )
    assert list(trajectory.times) == sorted(trajectory.times, reverse=True)
    for thinned, frames in zip(trajectory.words, TRAJECTORY.words, strict=True):
        assert thinned == tuple(frames[TRAJECTORY.times.index(t)] for t in trajectory.times)
    assert subsample(TRAJECTORY, 1000) == TRAJECTORY
    with pytest.raises(ValueError, match="2 or more"):
        subsample(TRAJECTORY, 1)


def test_printable_drops_padding_and_escapes_control_characters():
    trajectory = Trajectory("\x1b[2J", (0.5, 0.0), ((("a\nb", "", "x"), ("\u202e", "", "")),))
    assert printable(trajectory) == Trajectory("\\x1b[2J", (0.5, 0.0), ((("a\\nb", "x"), ("\\u202e", "")),))
    assert printable(flickering([list(CHINESE)], 3)).words[0][-1] == CHINESE


@pytest.mark.parametrize(
    ("trajectory", "message"),
    [
        (Trajectory("", (), ()), "needs at least one frame"),
        (Trajectory("", (0.0,), ()), "needs at least one frame"),
        (Trajectory("", (0.5, 0.0), ((("a",),),)), "sentence 0 has 1 frames for 2 times"),
        (Trajectory("", (0.5, 0.0), ((("a",), ("a", "b")),)), "sentence 0 has frames of 1 and of 2"),
        (
            Trajectory("", (0.0,), ((("a",),),), (Curve("x=y", ((1.0, 2.0),)),)),
            "energy of 'x=y' needs a value for each",
        ),
    ],
)
def test_malformed_trajectories_are_refused(trajectory: Trajectory, message: str):
    for show in (
        html_page,
        lambda trajectory: subsample(trajectory, 2),
        lambda trajectory: draw_png(trajectory, "x.png"),
    ):
        with pytest.raises(ValueError, match=message):
            show(trajectory)


def test_page_refers_to_nothing_outside_itself():
    text = html_page(TRAJECTORY)
    assert text.count("http") == 1 and "http-equiv" in text
    assert not re.search(r"(src|href|action|srcset)\s*=|//|url\(|@import|import\(|fetch\(|XMLHttp|Socket", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", text)


def test_page_never_lets_a_word_become_markup():
    text = html_page(hostile())
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert [text.count(word) for word in HOSTILE[:4]] == [0] * 4
    assert not re.search(r"<(img|svg on)|\u2028|\u2029", text)
    assert embedded_text(html_page(flickering([list(CHINESE)], 3))).isascii()


def test_page_contains_the_trajectory_word_for_word():
    trajectory = hostile()
    data = embedded_data(html_page(trajectory))
    shown = printable(trajectory)
    assert data["words"] == [[list(frame) for frame in frames] for frames in shown.words]
    assert data["since"] == [list(starts) for starts in settled_at(shown)]
    spans = re.findall(r'data-last="(.*?)"><span class="word">(.*?)</span>', html_page(trajectory))
    last = [word for frames in shown.words for word in frames[-1]]
    assert [(html.unescape(a), html.unescape(b)) for a, b in spans] == [(word, word) for word in last]


def test_page_allows_its_own_script_and_style_alone():
    text = html_page(TRAJECTORY)
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="(.*?)"', text)[0])
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for kind in ("style", "script"):
        inline = re.findall(rf"<{kind}>(.*?)</{kind}>", text, flags=re.S)
        assert len(inline) == 1
        digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy


@pytest.mark.parametrize(
    "trajectory",
    [
        TRAJECTORY,
        hostile(),
        Trajectory("one frame", (0.0,), ((("word",),),)),
        Trajectory("all padding", (0.5, 0.0), ((("", ""), ("", "")),)),
        flickering([TEXT * 7], 60),
        flickering([list(CHINESE) * 7], 20)._replace(title="扩散"),
        flickering([["$x^", "$\\frac$", "🙂", "नमस्ते", "سلام", "w" * 200]], 12),
        pytest.param(flickering([TEXT] * 40, 4), marks=pytest.mark.slow),
    ],
    ids=["two", "hostile", "one frame", "padding", "63 positions", "Chinese", "odd", "40 sentences"],
)
def test_draw_writes_a_png_without_warnings(trajectory: Trajectory, tmp_path):
    draw_png(trajectory, tmp_path / "trajectory.png")
    head = (tmp_path / "trajectory.png").read_bytes()[:24]
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and 300 < width < 4000 and 100 < height < 2**16


def test_play_prints_plain_lines_without_a_terminal():
    out = io.StringIO()
    play(TRAJECTORY, Console(file=out, force_terminal=False, width=20))
    lines = out.getvalue().splitlines()
    assert lines[-2] == "t=0.00  " + " ".join(TEXT) and lines[-1] == "t=0.00  " + " ".join(TEXT[:4])
    assert "\x1b" not in out.getvalue() and len(lines) == 10


def test_play_prints_markup_literally():
    out = io.StringIO()
    play(Trajectory("", (0.0,), ((("[bold]x[/bold]", "\x1b[31m"),),)), Console(file=out, force_terminal=False))
    assert out.getvalue() == "t=0.00  [bold]x[/bold] \\x1b[31m\n"


@pytest.mark.parametrize("trajectory", [TRAJECTORY, flickering([list(CHINESE) * 3], 9)], ids=["English", "Chinese"])
def test_play_animates_in_a_terminal_and_ends_on_the_text(trajectory: Trajectory):
    out = io.StringIO()
    start = time.monotonic()
    play(trajectory, Console(file=out, force_terminal=True, width=70, height=30, _environ={}), seconds=0.2)
    assert time.monotonic() - start >= 0.2
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "t=0.00" in seen and " ".join(filter(None, trajectory.words[0][-1])) in " ".join(seen.split())


def embedded_data(text: str) -> dict:
    return json.loads(embedded_text(text))


def embedded_text(text: str) -> str:
    return re.findall(r'id="trajectory">(.*?)</script>', text, flags=re.S)[0]
