"""Settings of latent editing are read from flags, checked, and stored by the names that files have always had."""

import argparse
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jtextdiff.cli.arguments import Parser, add_flow
from jtextdiff.cli.errors import UserError
from jtextdiff.inference.editing.flow_settings import FlowSettings, flow_as_json, flow_settings
from jtextdiff.inference.editing.latent import (
    MINIMAL_DECODINGS,
    MINIMAL_STOPS,
    RERANK_GUIDANCE,
    STOPS,
    Decoding,
    _limits,
    decodings,
    is_minimal,
    target_probability,
)
from jtextdiff.methods.components.latents import LatentSampler


def flags(*arguments: str) -> argparse.Namespace:
    parser = Parser(prog="edit")
    add_flow(parser)
    return parser.parse_args(arguments)


def test_flags_have_their_old_spellings_too() -> None:
    assert flow_settings(flags()) is None
    assert flow_settings(flags("--until=0.9", "--tau=3", "--keep=0.5", "--rerank")) == FlowSettings(3.0, 0.9, 0.5, True)
    assert flow_settings(flags("--target_probability=0.9")) == FlowSettings(target_probability=0.9)


@pytest.mark.parametrize(
    ("flow", "max_time"),
    [
        (FlowSettings(), None),
        (FlowSettings(source_pull=0.2), 100.0),
        (FlowSettings(target_probability=1.0), 100.0),
        (FlowSettings(max_time=3.0), 3.0),
        (FlowSettings(learned=True), 0.0),
    ],
)
def test_a_flow_has_a_time_unless_it_ends_at_the_target(flow: FlowSettings, max_time: float | None) -> None:
    edits: Any = SimpleNamespace(
        method=SimpleNamespace(sampler=LatentSampler()), field=None, conditioning=SimpleNamespace(readings=None)
    )
    limits = _limits(edits, flow, decodings(edits, flow))
    assert limits.max_time == max_time and limits.source_pull == pytest.approx(flow.source_pull)


def test_files_store_what_differs_from_the_default_by_its_old_name() -> None:
    assert flow_as_json(None) == {} == flow_as_json(FlowSettings())
    assert flow_as_json(FlowSettings(word_hold=0.0)) == {"word_hold": 0.0}
    assert flow_as_json(FlowSettings(2.0, 0.9, 0.1, True)) == {"tau": 2.0, "until": 0.9, "keep": 0.1, "rerank": True}


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (FlowSettings(max_time=-1), "max_time must be"),
        (FlowSettings(target_probability=1.5), "target_probability must be a number from 0 to 1"),
        (FlowSettings(target_probability="0.9"), "target_probability must be a number from 0 to 1, got '0.9'"),
        (FlowSettings(max_time=float("nan")), "max_time must be a number from 0 to 1000000"),
        (FlowSettings(word_hold=-1), "word_hold must be a number from 0 to 1000"),
        (FlowSettings(word_guidance=1001), "word_guidance must be a number from 0 to 1000"),
        (FlowSettings(source_pull=2), "source_pull must be"),
    ],
)
def test_settings_out_of_range_are_refused(flow: FlowSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        flow.check()


@pytest.mark.parametrize(
    ("flow", "guides", "expected"),
    [
        (FlowSettings(), True, list(MINIMAL_DECODINGS)),
        (FlowSettings(minimal=False), True, [Decoding(0.99)]),
        (FlowSettings(minimal=False, target_probability=0.7), True, [Decoding(0.7)]),
        (FlowSettings(word_guidance=3.0), True, [Decoding(stop, 3.0, 1.0) for stop in MINIMAL_STOPS]),
        (FlowSettings(word_hold=3.0, rerank=True), True, [Decoding(stop, 2.0, 3.0) for stop in STOPS]),
        (FlowSettings(word_guidance=0.0, word_hold=0.0), True, [Decoding(0.99)]),
        (FlowSettings(minimal=True), None, [Decoding(stop) for stop in MINIMAL_STOPS]),
        (FlowSettings(rerank=True), False, [Decoding(stop) for stop in STOPS]),
        (FlowSettings(), None, [Decoding(0.99)]),
    ],
)
def test_a_latent_is_decoded_at_stops_with_guidance_where_controls_have_words(
    flow: FlowSettings, guides: bool | None, expected: list
) -> None:
    readings = None if guides is None else SimpleNamespace(guides=guides)
    edits: Any = SimpleNamespace(conditioning=SimpleNamespace(readings=readings))
    assert decodings(edits, flow) == expected


@pytest.mark.parametrize("minimal", [None, False, True])
def test_rerank_decodes_at_every_stop_with_every_guidance(minimal: bool | None) -> None:
    edits: Any = SimpleNamespace(conditioning=SimpleNamespace(readings=SimpleNamespace(guides=True)))
    found = decodings(edits, FlowSettings(rerank=True, minimal=minimal))
    assert len(found) == len(set(found)) == len(STOPS) * len(RERANK_GUIDANCE)
    assert {decoding[1:] for decoding in found if decoding.stop == 0.5} == set(RERANK_GUIDANCE)


@pytest.mark.parametrize(
    ("flow", "guides", "minimal", "target"),
    [
        (FlowSettings(), True, True, 0.9),
        (FlowSettings(), None, False, 0.99),
        (FlowSettings(), False, False, 0.99),
        (FlowSettings(word_guidance=0.0, word_hold=0.0), True, False, 0.99),
        (FlowSettings(word_guidance=0.0, word_hold=0.0, minimal=True), True, True, 0.9),
        (FlowSettings(minimal=False), True, False, 0.99),
        (FlowSettings(target_probability=0.6), True, True, 0.6),
    ],
)
def test_edits_are_minimal_where_words_guide_the_decoding(
    flow: FlowSettings, guides: bool | None, minimal: bool, target: float
) -> None:
    """The latent of a minimal edit is decoded at its own stops, whatever the target."""
    readings = None if guides is None else SimpleNamespace(guides=guides)
    sampler = SimpleNamespace(sampler=LatentSampler())
    edits: Any = SimpleNamespace(conditioning=SimpleNamespace(readings=readings), method=sampler, field=None)
    assert is_minimal(edits, flow) is minimal and target_probability(edits, flow) == target
    limits = _limits(edits, flow, decodings(edits, flow))
    assert limits.target_probability == pytest.approx(MINIMAL_STOPS if minimal else [target])
    assert limits.decoded is not None
    stops = np.asarray(limits.target_probability)[limits.decoded]
    assert stops == pytest.approx([decoding.stop for decoding in decodings(edits, flow)])
