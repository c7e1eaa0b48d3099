"""Energies of a trajectory: one per frame, named, and equal to the energy of the model."""

import dataclasses
import html
import io
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import keyword, length, regex
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.types import Sample, TextSpec
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.guidance import Guidance
from jtextdiff.visualization.html_page import html_page
from jtextdiff.visualization.png_figure import draw_png
from jtextdiff.visualization.recording import record, trajectory_of
from jtextdiff.visualization.terminal import play
from jtextdiff.visualization.trajectory import Curve, Trajectory, printable, step_at, subsample

HOSTILE = ("</script><script>alert(1)</script>=x", "<img onerror=alert(1) src=x>", '"><svg onload=alert(1)>', "<!--")
TEXT_SPEC = TextSpec(vocab_size=12, mask=12, pad=0, eos=1, unk=2, length=8, length_counts=(0, 0, 0, 9, 9, 9, 9, 9, 9))
TRUNK = Transformer(num_layers=1, width=16, num_heads=2)


class WordTokenizer:
    """Words w3, w4, … as a tokenizer."""

    vocab_size, pad, eos, unk = 12, 0, 1, 2
    token_texts = tuple(f"w{token}" if token > 1 else "" for token in range(12))

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.asarray([int(word[1:]) if word[0] == "w" else 2 for word in text.split()], int) for text in texts]

    def encode_template(self, template: str) -> tuple[np.ndarray, np.ndarray]:
        words = template.split()
        return self.encode([template])[0], np.asarray([word != "[MASK]" for word in words])

    def decode(self, ids: Any) -> str:
        return " ".join(f"w{token}" for token in ids if token > 1)


def model(method: Any) -> Model:
    params, tokenizer, config = method.init(jax.random.key(0)), WordTokenizer(), ConfigDict()
    return Model(method=method, params=params, tokenizer=tokenizer, config=config, step=0)  # type: ignore[arg-type]


STATE = Guidance(input="state")  # the energy of the shown state is then the one that guides
BASE = DiffusionLM(text_spec=TEXT_SPEC, trunk=TRUNK, embed_dim=4, sampler=Sampler(steps=4, guidance=STATE))
WANTED = keyword("w5") + regex("w[78]") * 2


def with_curves(num_frames: int, *names: str) -> Trajectory:
    """Two sentences whose energies differ between sentences and frames."""
    frames = range(num_frames)
    words = tuple(tuple((f"{s}", f"w{f}", "" if s else "x") for f in frames) for s in range(2))
    nats = tuple(tuple(s + 1 / (1 + f) for f in frames) for s in range(2))
    times = tuple(1 - f / max(1, num_frames - 1) for f in frames)
    return Trajectory("a title", times, words, tuple(Curve(name, nats) for name in names), (1.0, 0.2))


def test_subsample_keeps_energies_with_their_frames() -> None:
    whole = with_curves(41, "food=Thai", "keyword=pub")
    trajectory = subsample(whole, 7)
    assert [curve.name for curve in trajectory.energies] == [
        "food=Thai",
        "keyword=pub",
    ] and trajectory.guided == whole.guided
    for before, after in zip(whole.energies, trajectory.energies, strict=True):
        for s in range(2):
            assert after.nats[s] == tuple(before.nats[s][whole.times.index(t)] for t in trajectory.times)


def test_a_time_is_interpolated_between_its_frames() -> None:
    trajectory = with_curves(11, "food=Thai")
    assert [step_at(trajectory, t) for t in trajectory.times] == pytest.approx(list(range(11)))
    assert step_at(trajectory, 0.25) == pytest.approx(7.5)


def test_page_shows_energies_and_their_names_never_become_markup() -> None:
    trajectory = with_curves(12, *HOSTILE)
    text = html_page(trajectory)
    assert text.count("<script") == 2 and [text.count(name) for name in HOSTILE[:3]] == [0] * 3
    assert not re.search(r"<(img|svg on|!--)", text)
    shown = re.findall(r'<bdi class="name">(.*?)</bdi> <b class="nats">(.*?)</b>', text)
    assert [html.unescape(name) for name, _ in shown] == [*HOSTILE, *HOSTILE]
    assert [nats for _, nats in shown] == ["0.08"] * 4 + ["1.08"] * 4
    data = json.loads(re.findall(r'id="trajectory">(.*?)</script>', text, flags=re.S)[0])["energies"]
    for curve, embedded in zip(printable(trajectory).energies, data, strict=True):
        assert embedded["name"] == curve.name
        np.testing.assert_allclose(embedded["nats"], curve.nats, atol=1e-4)
    assert text.count("<polyline") == 8 and "<figure" not in html_page(trajectory._replace(energies=()))


def test_page_omits_values_that_are_not_finite() -> None:
    trajectory = Trajectory("", (0.5, 0.0), ((("a",), ("b",)),), (Curve("x=y", ((float("nan"), 2.0),)),))
    assert '"nats":[[null,2.0]]' in html_page(trajectory) and 'points="1,0.0"' in html_page(trajectory)


@pytest.mark.parametrize(
    "trajectory",
    [
        with_curves(60, "food=Thai", "keyword=pub"),
        with_curves(3, *HOSTILE, "$x^", "扩散=好", "n" * 90, *"abcd"),
        with_curves(2, "food=Thai")._replace(guided=None),
        Trajectory("no number", (0.0,), ((("word",),),), (Curve("x=y", ((float("inf"),),)),), (1.0, 0.0)),
    ],
    ids=["two", "eleven", "unguided", "no number"],
)
def test_energies_are_drawn_without_warnings_next_to_the_words(trajectory: Trajectory, tmp_path) -> None:
    size = lambda path: np.frombuffer(path.read_bytes()[16:24], ">u4")
    draw_png(trajectory, tmp_path / "with.png")
    draw_png(trajectory._replace(energies=()), tmp_path / "without.png")
    assert 300 < size(tmp_path / "without.png")[0] < size(tmp_path / "with.png")[0] < 4000


def test_play_prints_energies_after_their_sentences() -> None:
    trajectory, out = with_curves(11, "food=Thai", "keyword=[b]"), io.StringIO()
    play(trajectory, Console(file=out, force_terminal=False))
    assert out.getvalue().splitlines()[-2:] == [
        "t=0.00  0 w10 x   food=Thai 0.09  keyword=[b] 0.09",
        "t=0.00  1 w10   food=Thai 1.09  keyword=[b] 1.09",
    ]
    out = io.StringIO()
    play(trajectory, Console(file=out, force_terminal=True, width=70, height=30, _environ={}), seconds=0.1)
    assert "food=Thai 1.00" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())


@pytest.mark.slow
def test_a_trajectory_has_each_energy_at_each_frame_and_ends_on_that_of_the_text() -> None:
    """With these settings the last state is the embedding of the text, so its energy is that of the text."""
    base = model(BASE)
    trajectory, texts = record(base, 3, control=WANTED), base.sample(3, control=WANTED)
    assert [curve.name for curve in trajectory.energies] == ["keyword=w5", "regex=w[78]"]
    assert trajectory.guided == (1.0, 0.05) and len(trajectory.times) == 5
    nats = np.asarray([curve.nats for curve in trajectory.energies])
    assert nats.shape == (2, 3, 5) and np.isfinite(nats).all()
    np.testing.assert_allclose(nats[:, :, -1].T @ [1.0, 2.0], base.energy(texts, WANTED), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_trajectory_shows_the_sampled_texts_and_lowers_its_energy() -> None:
    """Recording energies changes no word, and guidance lowers the energy."""
    base = model(BASE)
    trajectory, texts = record(base, 3, control=WANTED), base.sample(3, control=WANTED)
    assert [" ".join(w for w in frames[-1] if w != "⏎") for frames in trajectory.words] == texts
    idle = dataclasses.replace(BASE.sampler, guidance=dataclasses.replace(BASE.sampler.guidance, updates=0))
    alone = record(model(dataclasses.replace(BASE, sampler=idle)), 3, control=WANTED)
    assert alone.guided is None
    middle = lambda trajectory: np.mean([[values[2] for values in curve.nats] for curve in trajectory.energies])
    assert middle(trajectory) < middle(alone)


def test_a_trajectory_has_a_frame_for_each_call_also_if_no_word_changes() -> None:
    """A latent edit may move the latent without changing a word."""
    tokens = jnp.asarray([[3, 4, 1, 0]])
    sample = Sample(tokens=tokens, path=jnp.stack([tokens] * 5), calls=jnp.asarray([2]))
    for redecoded in (False, True):
        trajectory = trajectory_of("a method", sample, 1, WordTokenizer(), redecoded=redecoded)  # type: ignore[arg-type]
        assert trajectory.words == ((("w3", "w4", "⏎"),) * 3,)


@pytest.mark.slow
def test_a_length_has_no_curve_and_impossible_controls_are_refused() -> None:
    assert record(model(BASE), 1, control=length(3)).energies == () and record(model(BASE), 1).energies == ()
    with pytest.raises(UserError, match="leave out controls"):
        record(model(BASE), 1, control=length(3), template="w5 [MASK]")
    with pytest.raises(UserError, match="at most 7 tokens"):
        record(model(BASE), 1, control=keyword(" ".join(["w5"] * 8)))
    assert record(model(Masked(text_spec=TEXT_SPEC, trunk=TRUNK)), 1, control=length(3)).energies == ()
