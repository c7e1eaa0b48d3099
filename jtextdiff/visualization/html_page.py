"""A trajectory as one self-contained HTML page.

The page fetches nothing, and no word of the text is ever parsed as markup.
"""

import base64
import hashlib
import html
import json
import math

from jtextdiff.visualization.html_template import PAGE, SCRIPT, STYLE
from jtextdiff.visualization.trajectory import (
    CURVE_COLOURS,
    Trajectory,
    log_height,
    max_energy,
    printable,
    settled_at,
    settled_share,
    step_at,
)

STRIP_HEIGHT = 100  # in SVG units, of the progress strip and of the curves; one unit of width is one step
COLOURED = STYLE + "".join(f".c{c} {{ --curve: {colour}; }}\n" for c, colour in enumerate(CURVE_COLOURS))


def html_page(trajectory: Trajectory) -> str:
    """Returns one HTML page with a slider over the steps, play and pause, arrow keys, and light and dark colours.

    It opens at the first frame, or at the frame that the address names (`denoising.html#30`). Without scripts it
    shows the last. Raises ValueError for a malformed trajectory.
    """
    trajectory = printable(trajectory)
    shares = settled_share(trajectory)
    last = len(trajectory.times) - 1
    sentences = [_sentence(frames[-1], _curves(trajectory, s)) for s, frames in enumerate(trajectory.words)]
    return PAGE.format(
        policy=f"default-src 'none'; style-src {_source(COLOURED)}; script-src {_source(SCRIPT)}; "
        "base-uri 'none'; form-action 'none'",
        title=html.escape(trajectory.title),
        style=COLOURED,
        sentences="\n".join(sentences),
        time=f"t = {trajectory.times[-1]:.2f}",
        last=last,
        height=STRIP_HEIGHT,
        points=_points(shares),
        trajectory=_json(_data(trajectory, shares)),
        script=SCRIPT,
    )


def _data(trajectory: Trajectory, shares: tuple[float, ...]) -> dict[str, object]:
    """Returns what the page's script plays: times, words, first settled frames, shares and energies."""
    energies = [
        {"name": name, "nats": [list(map(_json_number, values)) for values in nats]}
        for name, nats in trajectory.energies
    ]
    return {
        "times": trajectory.times,
        "words": trajectory.words,
        "since": settled_at(trajectory),
        "share": shares,
        "energies": energies,
    }


def _source(text: str) -> str:
    """Returns the content security policy's source expression for exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _sentence(words: tuple[str, ...], curves: str) -> str:
    """Returns the last frame of a sentence above its curves. A slot keeps the width of its last word at every step."""
    slots = []
    for word in map(html.escape, words):
        kind = "slot" if word else "slot padding"
        slots.append(f'<span class="{kind}" data-last="{word}"><span class="word">{word}</span></span>')
    return f'<li class="done" dir="auto">{"".join(slots)}{curves}</li>'


def _points(shares: tuple[float, ...]) -> str:
    """Returns the outline of the area under the shares, in SVG units."""
    tops = [f"{step},{STRIP_HEIGHT * (1 - share):.1f}" for step, share in enumerate(shares)]
    return " ".join([f"0,{STRIP_HEIGHT}", *tops, f"{len(shares) - 1},{STRIP_HEIGHT}"])


def _curves(trajectory: Trajectory, s: int) -> str:
    """Returns the energies of sentence `s` over the steps, with names and last values; "" if there are none."""
    if not trajectory.energies:
        return ""
    last, top, lines, names = len(trajectory.times) - 1, max_energy(trajectory), [], []
    for c, curve in enumerate(trajectory.energies):
        kind, nats = f"c{c % len(CURVE_COLOURS)}", curve.nats[s]
        lines.append(f'<polyline class="{kind}" points="{_line(nats, top)}"/>')
        name = f'<bdi class="name">{html.escape(curve.name)}</bdi>'
        names.append(f'<span class="{kind}">{name} <b class="nats">{nats[-1]:.2f}</b></span>')
    band, key = "", ""
    if trajectory.guided:
        start, end = (step_at(trajectory, time) for time in trajectory.guided)
        band = f'<rect x="{start:.2f}" y="0" width="{end - start:.2f}" height="{STRIP_HEIGHT}"/>'
        key = '<span><span class="key"></span> guided</span>'
    cursor = f'<line class="now" x1="{last}" y1="0" x2="{last}" y2="{STRIP_HEIGHT}"/>'
    return (
        f'<figure class="curves" dir="ltr"><svg viewBox="0 0 {last} {STRIP_HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="Energies over the steps">{band}{"".join(lines)}{cursor}</svg><figcaption>'
        f'{"".join(names)}{key}<span class="scale">−log p(control | x_t), 0 to {top:.1f} nats, logarithmic scale'
        "</span></figcaption></figure>"
    )


def _line(nats: tuple[float, ...], top: float) -> str:
    """Returns the points of a curve in SVG units; values that are not finite are omitted."""
    heights = enumerate(STRIP_HEIGHT * (1 - log_height(value, top)) if math.isfinite(value) else None for value in nats)
    return " ".join(f"{step},{y:.1f}" for step, y in heights if y is not None)


def _json_number(value: float) -> float | None:
    """Returns the value rounded to 4 decimals; None if it is not finite, since JSON has no infinity."""
    return round(value, 4) if math.isfinite(value) else None


def _json(data: object) -> str:
    """Returns JSON that no HTML parser can take for markup; json itself escapes all beyond ASCII, U+2028 too."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
