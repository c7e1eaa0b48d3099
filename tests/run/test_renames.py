"""Runs stored by earlier versions: their configs still describe a method that samples, and a run that can resume."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from support.runs import ROOT

from jtextdiff.cli.errors import UserError
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.methods.components.types import nothing_given
from jtextdiff.methods.method import Method
from jtextdiff.run.config import build, class_of, differences, from_json, spec, to_json
from jtextdiff.run.config_files import load_config, override
from jtextdiff.run.renames import ABSENT, CLASS, CLASSES, FIELDS, VALUES, with_current_names
from jtextdiff.run.workdir import MAY_CHANGE

STORED: dict[str, Any] = json.loads(Path(__file__).with_name("stored_configs.json").read_text(encoding="utf-8"))
"""A config of each method, as stored before classes and fields had their current names."""

FORMER = {current: former for former, current in CLASSES.items()}
FIELD_ROWS = [(name, former, current) for name, fields in FIELDS.items() for former, current in fields.items()]
VALUE_ROWS = [
    (name, field, former, current)
    for name, fields in VALUES.items()
    for field, values in fields.items()
    for former, current in values.items()
]


def fields_of(name: str) -> set[str]:
    return {field.name for field in dataclasses.fields(class_of({CLASS: name}))}


def respecified(config: Any) -> Any:
    """Returns the part of a config as a new run would write it."""
    built = build(config)
    return spec(type(built), **{field.name: getattr(built, field.name) for field in dataclasses.fields(built)})


@pytest.mark.parametrize("name", STORED)
def test_a_stored_config_still_describes_its_run(name: str) -> None:
    config = from_json(json.dumps(STORED[name]))
    method, _, _ = build(config.method), build(config.text), build(config.optim)
    params = jax.eval_shape(method.init, jax.random.key(0))
    assert jax.tree.leaves(params)
    if isinstance(method, Method):
        keys = keys_for(jax.random.key(0), jnp.arange(2))
        sample = jax.eval_shape(method.sample, params, keys, nothing_given(2, method.text_spec.length))
        assert sample.tokens.shape == (2, method.text_spec.length)


@pytest.mark.parametrize("name", STORED)
def test_a_stored_run_resumes_as_the_same_run(name: str) -> None:
    """Neither storing it again nor rebuilding it from the current classes changes a field."""
    config = from_json(json.dumps(STORED[name]))
    assert differences(config, from_json(to_json(config)), ignored=()) == []
    fresh = from_json(to_json(config))
    for part in ("method", "text", "optim"):
        fresh[part] = respecified(fresh[part])
    assert differences(config, fresh, MAY_CHANGE) == []


@pytest.mark.parametrize("former", CLASSES)
def test_a_former_class_maps_to_a_dataclass(former: str) -> None:
    assert dataclasses.is_dataclass(class_of(with_current_names({CLASS: former})))


@pytest.mark.parametrize(("name", "former", "current"), FIELD_ROWS)
def test_a_former_field_is_read_under_its_current_name(name: str, former: str, current: str) -> None:
    assert current in fields_of(name) and former not in fields_of(name)
    stored = {CLASS: FORMER.get(name, name), former: 7}
    assert with_current_names({"a": [{"sampler": stored}]}) == {"a": [{"sampler": {CLASS: name, current: 7}}]}


@pytest.mark.parametrize(("name", "field", "former", "current"), VALUE_ROWS)
def test_a_former_value_is_read_as_its_current_one(name: str, field: str, former: str, current: Any) -> None:
    assert field in fields_of(name)
    assert with_current_names({CLASS: name, field: former}) == {CLASS: name, field: current}


SIZES = {
    "": [
        "num_steps=40",
        "batch_size=16",
        "every.log=10",
        "every.evaluate=20",
        "every.sample=40",
        "every.checkpoint=20",
    ],
    "trunk": ["method.trunk.width=32", "method.trunk.num_layers=1", "method.trunk.num_heads=2"],
    "vae": [f"method.{net}.{size}" for net in ("encoder", "decoder") for size in ("width=32", "num_layers=1")],
}
TRAINED = {
    "autoregressive": ("autoregressive.py", [*SIZES[""], *SIZES["trunk"]]),
    "cmlm": ("cmlm.py", [*SIZES[""], *SIZES["trunk"]]),
    "cvae": ("latent_ops.py:cvae", [*SIZES[""], *SIZES["vae"]]),
    "d3pm": ("d3pm.py", [*SIZES[""], *SIZES["trunk"]]),
    "diffusion_lm": ("diffusion_lm.py", [*SIZES[""], *SIZES["trunk"], "method.embed_dim=16"]),
    "diffusion_lm_paper": ("diffusion_lm.py:paper", [*SIZES[""], *SIZES["trunk"], "method.num_steps=40"]),
    "latent_ops": ("latent_ops.py", [*SIZES[""], *SIZES["vae"]]),
    "masked": (
        "masked.py",
        [*SIZES[""], *SIZES["trunk"], "method.sampler.top_p=1.0", "method.sampler.correct=off"],
    ),
}
"""The config and the overrides with which a run of STORED was trained."""

FILLED_IN = ("method.text_spec", "method.values", "optim.decay_steps")
"""Fields that a run takes from its text and its number of steps."""


@pytest.mark.parametrize("name", TRAINED)
def test_a_stored_config_equals_that_of_the_same_command_now(name: str) -> None:
    """All fields are equal, so each former name and value keeps its meaning."""
    file, overrides = TRAINED[name]
    current = load_config(f"{ROOT}/configs/{file}", [f"--config.{text}" for text in overrides])
    assert differences(from_json(json.dumps(STORED[name])), current, (*FILLED_IN, "every")) == []


def test_a_former_value_that_is_no_default_is_read() -> None:
    stored = json.loads(json.dumps(STORED["masked"]))
    stored["method"]["hidden"] = "timed"
    assert from_json(json.dumps(stored)).method.masking == "bernoulli"


def test_fields_that_older_configs_lack_exist() -> None:
    assert all(field in fields_of(name) for name, fields in ABSENT.items() for field in fields)


def test_the_error_for_a_former_field_names_the_current_one() -> None:
    config = from_json(json.dumps(STORED["latent_ops"]))
    with pytest.raises(UserError, match=r"no field 'method\.sampler\.tau' \(it is now called 'max_time'\)"):
        override(config, ["method.sampler.tau=3"])
