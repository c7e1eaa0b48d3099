"""What guidance costs is timed through the command, on a toy run whose control was trained and is read from disk."""

import json
from pathlib import Path
from typing import Any

import pytest

from jtextdiff import benchmark
from jtextdiff.benchmarks.guidance import equivalents, other_targets, unsteered
from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import classifier, keyword, length
from jtextdiff.control.resolve import asked
from jtextdiff.control.trained import home_of
from jtextdiff.inference.model import load
from jtextdiff.run.checkpoints import open_checkpoints, save
from jtextdiff.run.config import Config, load_config
from jtextdiff.training.control_setup import on_base
from jtextdiff.training.loop import prepare

ROOT = Path(__file__).parents[2]
SMALL = {"trunk.num_layers": 1, "trunk.width": 16, "trunk.num_heads": 2}
TEXTS = [f"The {name} is {price} .,{price}" for name in ("Mill", "Swan", "Oak") for price in ("cheap", "dear", "small")]
GUIDE = ["guide", "--checkpoint=base", "--no_peer", "--repeats=1", "--steps=4"]
ROWS = ["unguided", "released", "guided"]


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a Diffusion-LM in `base`, its control of price and an autoregressive run in `ar`, all untrained."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "priced.csv").write_text("\n".join(["text,price", *TEXTS * 20]) + "\n")
    small = ["--config.text.path=priced.csv", *(f"--config.method.{name}={value}" for name, value in SMALL.items())]
    words = ["--config.text.tokenizer=words:1", *small]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        born(load_config(f"{ROOT}/configs/diffusion_lm.py", words), Path("base"))
        born(load_config(f"{ROOT}/configs/autoregressive.py", words), Path("ar"))
        control = ["--config.base=base", "--config.label=price", *small]
        born(on_base(load_config(f"{ROOT}/configs/control.py", control)), home_of("base", "price"))
        yield folder


def born(config: Config, workdir: Path) -> None:
    """A run whose only checkpoint is that of its first parameters."""
    workdir.mkdir(parents=True)
    _, state, _ = prepare(config, workdir)
    with open_checkpoints(workdir) as manager:
        save(manager, 1, state["ema"], {name: part for name, part in state.items() if name != "ema"}, 1.0)


def result(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    benchmark.command([*GUIDE, *flags])
    return json.loads(capsys.readouterr().out)


def test_rows_are_timed_and_other_targets_need_no_other_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jtextdiff.benchmarks.timing.SIZE", 64)
    found = result(capsys, "--control=price=cheap", "--batches=2,3", "--against=ar", "--num=4", "--judge=ar")
    new = [[timed["rows"][name]["compilations"] for name in ROWS] for timed in found["batches"].values()]
    assert list(found["batches"]) == ["2", "3"] and new == [[1, 1, 1], [0, 0, 0]]  # both are padded to one shape
    for timed in found["batches"].values():
        assert list(timed["rows"]) == ["autoregressive", *ROWS]
        assert timed["other_targets"] == ["price=dear", "price=small"] and timed["compilations_of_other_targets"] == 0
        assert timed["guided_over_released"] > 0 and timed["unguided_over_autoregressive_cpu"] > 0
        guided, released = (timed["rows"][name]["seconds_per_text"] for name in ("guided", "released"))
        assert timed["guided_over_released"] == pytest.approx(guided / released)
    released = found["samplers"]["released"]
    assert (released["name"], released["eta"], released["steps"]) == ("ddim", 1.0, 200)
    assert found["samplers"]["guided"]["steps"] == 4 and found["rate_unit"] == pytest.approx(3 / 8)
    texts = found["texts"]
    assert texts["guided"]["control_success"]["n"] == 4 and texts["unguided"]["generative_perplexity"]["value"] > 1
    difference = texts["guided_minus_released"]["control_success"]
    assert difference["lower_95"] <= difference["value"]


def test_a_control_without_a_label_is_drawn_with_another_weight() -> None:
    control = keyword("Mill") + length(5)
    assert other_targets(load("base"), control) == [control * 2]


def test_guidance_is_counted_at_the_steps_where_it_is_followed() -> None:
    def count(*settings: str) -> float:
        fields = ["method.sampler.steps=10", *(f"method.sampler.guidance.{each}" for each in settings)]
        model = load("base", overrides=fields)
        wanted = asked(classifier("price", "cheap"), model.steered)
        return equivalents(model, wanted.energy)

    plain, one = count("updates=0"), count("updates=1", "last=0")
    assert plain >= 10  # the pass of each step, and the words' table beside it
    assert count("updates=3", "last=0") - plain == pytest.approx(3 * (one - plain))
    assert count("updates=1", "last=0.35", "first=0.85") - plain == pytest.approx(0.5 * (one - plain))
    assert count("updates=1", "last=0", "sees=network") > one + 10  # through the network, and back


def test_only_the_length_is_left_without_guidance() -> None:
    model = load("base")
    assert unsteered(classifier("price", "cheap") * 2 + length(5), model) == length(5)
    assert unsteered(classifier("price", "cheap"), model) is None


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "--control NAME=VALUE"),
        (("--control=length=5",), "length=5 has no energy"),
        (("--checkpoint=ar", "--control=price=cheap"), "DiffusionLM and TextVAE have"),
        (("--control=price=free",), "never seen 'free'"),
        (("--control=price=cheap", "--batches=1,none"), "such as 1,16,64, got '1,none'"),
        (("--control=price=cheap", "--batches=0"), "got '0'"),
        (("--control=price=cheap", "--num=1"), "at least 2"),
        (("--control=price=cheap", "--num=-3"), "at least 0"),
        (("--control=price=cheap", "--judge=ar"), "say with --num"),
        (("--control=price=cheap", "--against=base"), "--against is DiffusionLM"),
        (("--control=price=cheap", "--num=4", "--judge=base"), "must be exact"),
    ],
)
def test_mistakes_are_told(flags: tuple[str, ...], told: str) -> None:
    steps = [] if "--checkpoint=ar" in flags else GUIDE[-1:]
    with pytest.raises(UserError, match=told) as raised:
        benchmark.command([*GUIDE[:-1], *steps, *flags])
    assert "\n" not in str(raised.value)
