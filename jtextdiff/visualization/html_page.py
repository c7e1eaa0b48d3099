"""A film of denoising as one self-contained HTML page: nothing is fetched, no word is ever read as markup."""

import base64
import hashlib
import html
import json
import math

from jtextdiff.visualization.html_template import PAGE, SCRIPT, STYLE
from jtextdiff.visualization.trajectory import (
    CURVE_COLOURS,
    Film,
    height,
    most_nats,
    presentable,
    settled_at,
    settled_share,
    step_at,
)

STRIP_HEIGHT = 100  # of the strip's own units, and of the curves'; their width is one unit a step
COLOURED = STYLE + "".join(f".c{c} {{ --curve: {colour}; }}\n" for c, colour in enumerate(CURVE_COLOURS))


def page(film: Film) -> str:
    """One HTML page with a slider over the steps, play and pause, the arrow keys, in light and in dark.

    It opens at the first frame, or at the one that the address names (`film.html#30`); without scripts it
    shows the last. ValueError for a malformed film.
    """
    film = presentable(film)
    shares = settled_share(film)
    last = len(film.times) - 1
    energies = [{"name": name, "nats": [list(map(_number, values)) for values in nats]} for name, nats in film.energies]
    data = {"times": film.times, "words": film.words, "since": settled_at(film), "share": shares, "energies": energies}
    return PAGE.format(
        policy=f"default-src 'none'; style-src {_source(COLOURED)}; script-src {_source(SCRIPT)}; "
        "base-uri 'none'; form-action 'none'",
        title=html.escape(film.title),
        style=COLOURED,
        sentences="\n".join(_sentence(frames[-1], _curves(film, s)) for s, frames in enumerate(film.words)),
        time=f"t = {film.times[-1]:.2f}",
        last=last,
        height=STRIP_HEIGHT,
        points=_points(shares),
        film=_json(data),
        script=SCRIPT,
    )


def _source(text: str) -> str:
    """The content security policy's name for exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _sentence(words: tuple[str, ...], curves: str) -> str:
    """The last frame of a sentence, over its curves; a slot keeps the width of its last word, whatever stands in it."""
    slots = []
    for word in map(html.escape, words):
        kind = "slot" if word else "slot padding"
        slots.append(f'<span class="{kind}" data-last="{word}"><span class="word">{word}</span></span>')
    return f'<li class="done" dir="auto">{"".join(slots)}{curves}</li>'


def _points(shares: tuple[float, ...]) -> str:
    """The outline of the area under the shares, in the strip's units."""
    tops = [f"{step},{STRIP_HEIGHT * (1 - share):.1f}" for step, share in enumerate(shares)]
    return " ".join([f"0,{STRIP_HEIGHT}", *tops, f"{len(shares) - 1},{STRIP_HEIGHT}"])


def _curves(film: Film, s: int) -> str:
    """The energies of a sentence over the steps, with their names and last values; nothing, if there are none."""
    if not film.energies:
        return ""
    last, most, lines, names = len(film.times) - 1, most_nats(film), [], []
    for c, curve in enumerate(film.energies):
        kind, nats = f"c{c % len(CURVE_COLOURS)}", curve.nats[s]
        lines.append(f'<polyline class="{kind}" points="{_line(nats, most)}"/>')
        name = f'<bdi class="name">{html.escape(curve.name)}</bdi>'
        names.append(f'<span class="{kind}">{name} <b class="nats">{nats[-1]:.2f}</b></span>')
    band, key = "", ""
    if film.guided:
        start, end = (step_at(film, time) for time in film.guided)
        band = f'<rect x="{start:.2f}" y="0" width="{end - start:.2f}" height="{STRIP_HEIGHT}"/>'
        key = '<span><span class="key"></span> guided</span>'
    now = f'<line class="now" x1="{last}" y1="0" x2="{last}" y2="{STRIP_HEIGHT}"/>'
    return (
        f'<figure class="curves" dir="ltr"><svg viewBox="0 0 {last} {STRIP_HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="Energies over the steps">{band}{"".join(lines)}{now}</svg><figcaption>'
        f'{"".join(names)}{key}<span class="scale">−log p(control | x_t), 0 to {most:.1f} nats, a logarithmic scale'
        "</span></figcaption></figure>"
    )


def _line(nats: tuple[float, ...], most: float) -> str:
    """The points of a curve, in the strip's units; what is no number is left out."""
    tops = enumerate(STRIP_HEIGHT * (1 - height(value, most)) if math.isfinite(value) else None for value in nats)
    return " ".join(f"{step},{top:.1f}" for step, top in tops if top is not None)


def _number(value: float) -> float | None:
    """A value as JSON has it, which knows no infinity."""
    return round(value, 4) if math.isfinite(value) else None


def _json(data: object) -> str:
    """JSON that no HTML parser can mistake for markup; json itself escapes all beyond ASCII, U+2028 too."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
