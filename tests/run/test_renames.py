"""Runs stored by earlier versions: their configs still describe a method that samples, and a run that goes on."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.methods.components.types import nothing_given
from jtextdiff.methods.method import Method
from jtextdiff.run.config import build, differences, from_json, to_json

STORED: dict[str, Any] = json.loads(Path(__file__).with_name("stored_configs.json").read_text(encoding="utf-8"))
"""A config of each method, as the version before the rooms had their names wrote it."""


@pytest.mark.parametrize("name", STORED)
def test_a_stored_config_still_describes_its_run(name: str) -> None:
    config = from_json(json.dumps(STORED[name]))
    method, _, _ = build(config.method), build(config.text), build(config.optim)
    params = jax.eval_shape(method.init, jax.random.key(0))
    assert jax.tree.leaves(params)
    if isinstance(method, Method):
        keys = keys_for(jax.random.key(0), jnp.arange(2))
        sample = jax.eval_shape(method.sample, params, keys, nothing_given(2, method.language.length))
        assert sample.tokens.shape == (2, method.language.length)


@pytest.mark.parametrize("name", STORED)
def test_what_is_stored_again_is_the_same_config(name: str) -> None:
    config = from_json(json.dumps(STORED[name]))
    assert differences(config, from_json(to_json(config)), ignored=()) == []
