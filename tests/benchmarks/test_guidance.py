"""The cost of guidance, timed through the command on a toy run whose control is read from disk."""

import json
from pathlib import Path
from typing import Any

import pytest

from jtextdiff import benchmark
from jtextdiff.benchmarks.guidance import forward_equivalents, other_targets, without_energy
from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import classifier, keyword, length
from jtextdiff.control.resolve import resolve
from jtextdiff.control.trained import control_dir
from jtextdiff.inference.model import load
from jtextdiff.run.checkpoints import open_checkpoints, save
from jtextdiff.run.config import Config
from jtextdiff.run.config_files import load_config
from jtextdiff.training.control_setup import control_config
from jtextdiff.training.loop import start_state
from jtextdiff.training.setup import build_setup

ROOT = Path(__file__).parents[2]
SMALL = {"trunk.num_layers": 1, "trunk.width": 16, "trunk.num_heads": 2}
TEXTS = [f"The {name} is {price} .,{price}" for name in ("Mill", "Swan", "Oak") for price in ("cheap", "dear", "small")]
GUIDE = ["guide", "--checkpoint=base", "--no_peer", "--repeats=1", "--steps=4"]
ROWS = ["unguided", "released", "guided"]


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with an untrained Diffusion-LM in `base`, its control of price and an autoregressive run in `ar`."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "priced.csv").write_text("\n".join(["text,price", *TEXTS * 20]) + "\n")
    small = ["--config.text.path=priced.csv", *(f"--config.method.{name}={value}" for name, value in SMALL.items())]
    words = ["--config.text.tokenizer=words:1", *small]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        save_untrained(load_config(f"{ROOT}/configs/diffusion_lm.py", words), Path("base"))
        save_untrained(load_config(f"{ROOT}/configs/autoregressive.py", words), Path("ar"))
        control = ["--config.base=base", "--config.label=price", *small]
        save_untrained(control_config(load_config(f"{ROOT}/configs/control.py", control)), control_dir("base", "price"))
        yield folder


def save_untrained(config: Config, workdir: Path) -> None:
    """Writes a run whose only checkpoint has its initial parameters."""
    workdir.mkdir(parents=True)
    state, _ = start_state(build_setup(config, workdir), workdir)
    with open_checkpoints(workdir) as manager:
        save(manager, 1, state["ema"], {name: part for name, part in state.items() if name != "ema"}, 1.0)


def result(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    benchmark.command([*GUIDE, *flags])
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_rows_are_timed_and_other_targets_compile_no_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jtextdiff.benchmarks.timing.MATMUL_SIZE", 64)
    report = result(capsys, "--control=price=cheap", "--batches=2,3", "--against=ar", "--num=4", "--judge=ar")
    new = [[timed["rows"][name]["compilations"] for name in ROWS] for timed in report["batches"].values()]
    assert list(report["batches"]) == ["2", "3"] and new == [[1, 1, 1], [0, 0, 0]]  # both are padded to the same shape
    for timed in report["batches"].values():
        assert list(timed["rows"]) == ["autoregressive", *ROWS]
        assert timed["other_targets"] == ["price=dear", "price=small"] and timed["compilations_of_other_targets"] == 0
        assert timed["guided_over_released"] > 0 and timed["unguided_over_autoregressive_cpu"] > 0
        guided, released = (timed["rows"][name]["seconds_per_text"] for name in ("guided", "released"))
        assert timed["guided_over_released"] == pytest.approx(guided / released)
    released = report["samplers"]["released"]
    assert (released["name"], released["eta"], released["steps"]) == ("ddim", 1.0, 200)
    assert report["samplers"]["guided"]["steps"] == 4 and report["rate_unit"] == pytest.approx(3 / 8)
    texts = report["texts"]
    assert texts["guided"]["control_success"]["n"] == 4 and texts["unguided"]["generative_perplexity"]["value"] > 1
    difference = texts["guided_minus_released"]["control_success"]
    assert difference["lower_95"] <= difference["value"]


@pytest.mark.slow
def test_a_control_without_a_label_is_timed_with_another_weight() -> None:
    control = keyword("Mill") + length(5)
    assert other_targets(load("base"), control) == [control * 2]


@pytest.mark.slow
def test_guidance_is_counted_at_the_steps_where_it_acts() -> None:
    def count(*settings: str) -> float:
        fields = ["method.sampler.steps=10", *(f"method.sampler.guidance.{setting}" for setting in settings)]
        model = load("base", overrides=fields)
        return forward_equivalents(model, resolve(classifier("price", "cheap"), model).energy)

    unguided, guided = count("updates=0"), count("updates=1", "stop=0")
    assert unguided >= 10  # the pass of each step, and the product with the embedding table
    assert count("updates=3", "stop=0") - unguided == pytest.approx(3 * (guided - unguided))
    assert count("updates=1", "stop=0.35", "start=0.85") - unguided == pytest.approx(0.5 * (guided - unguided))
    assert count("updates=1", "stop=0", "input=network") > guided + 10  # through the network, and back


@pytest.mark.slow
def test_without_energy_only_the_length_remains() -> None:
    model = load("base")
    assert without_energy(classifier("price", "cheap") * 2 + length(5), model) == length(5)
    assert without_energy(classifier("price", "cheap"), model) is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--control NAME=VALUE"),
        (("--control=length=5",), "length=5 has no energy"),
        (("--checkpoint=ar", "--control=price=cheap"), "follows no controls but length"),
        (("--control=price=free",), "has no value 'free'"),
        (("--control=price=cheap", "--batches=1,none"), "such as 1,16,64, got '1,none'"),
        (("--control=price=cheap", "--batches=0"), "got '0'"),
        (("--control=price=cheap", "--num=1"), "at least 2"),
        (("--control=price=cheap", "--num=-3"), "at least 0"),
        (("--control=price=cheap", "--judge=ar"), "give their number with --num"),
        (("--control=price=cheap", "--against=base"), "--against is DiffusionLM"),
        (("--control=price=cheap", "--num=4", "--judge=base"), "must be exact"),
    ],
)
def test_errors_are_one_line(flags: tuple[str, ...], message: str) -> None:
    steps = [] if "--checkpoint=ar" in flags else GUIDE[-1:]
    with pytest.raises(UserError, match=message) as raised:
        benchmark.command([*GUIDE[:-1], *steps, *flags])
    assert "\n" not in str(raised.value)
