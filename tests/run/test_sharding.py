"""Devices: every array of a run has its place on a mesh of eight, and a step there is the step of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jtextdiff.run.command import UserError
from jtextdiff.run.sharding import make_mesh, shardings

EIGHT_DEVICES = """
import functools, json, re
import jax, numpy as np
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.method import Language
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run import sharding
from jtextdiff.run.command import UserError
from jtextdiff.run.optim import AdamW
from jtextdiff.run.step import init_state, train_step
from jtextdiff.text.batches import Batch

language = Language(vocab_size=12, mask=12, pad=0, eos=1, length=8, length_counts=(0,) + (1,) * 8)
trunk = dict(num_layers=1, width=16, num_heads=2, expansion=2, time_features=8, max_length=8)
optim = AdamW()
told = {"devices": jax.device_count(), "shapes": [], "refused": []}
rng = np.random.default_rng(0)
tokens = rng.integers(2, 12, (16, 8)).astype(np.int32)
valid = np.arange(8) < rng.integers(2, 9, (16, 1))
batch = Batch(tokens, valid, np.zeros_like(valid), {})

for sizes in ((-1, 1, 1), (4, 2, 1), (2, -1, 2), (2, 2, 2)):
    told["shapes"].append(list(sharding.make_mesh(*sizes).shape.values()))
for sizes in ((3, 1, 1), (-1, 3, 1), (-1, -1, 1), (8, 2, 1), (-1, 0, 1), (4, 1, 1)):
    try:
        sharding.make_mesh(*sizes)
    except UserError:
        told["refused"].append(list(sizes))

def leaves(tree):
    return {sharding._name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

for name, method in {
    "DiffusionLM": DiffusionLM(language=language, trunk=Transformer(**trunk), embed_dim=8, num_steps=50),
    "Autoregressive": Autoregressive(language=language, trunk=Transformer(causal=True, **trunk)),
}.items():
    make = functools.partial(init_state, method, optim)
    state = make(jax.random.key(0))
    step = functools.partial(train_step, method, optim)
    one, told_one = jax.jit(step)(state, jax.random.key(1), batch)
    mesh = sharding.make_mesh(4, 2, 1)
    places = sharding.shardings(mesh, state)
    spread = jax.device_put(state, places)
    placed = sharding.place(batch, mesh)
    eight, told_eight = jax.jit(step, out_shardings=(places, None))(spread, jax.random.key(1), placed)
    worst = {
        path: float(np.max(np.abs(np.asarray(leaf, np.float64) - np.asarray(leaves(eight)[path]))))
        for path, leaf in leaves(one).items()
    }
    told[name] = {
        "worst": max(worst.values()),
        "worst_moment": max(gap for path, gap in worst.items() if {"mu", "nu"} & set(path.split("/"))),
        "loss": [float(told_one["loss"]), float(told_eight["loss"])],
        "split": [path for path, leaf in leaves(eight).items() if not leaf.sharding.is_fully_replicated],
        "unruled": [
            [path, leaf.ndim, leaf.size] for path, leaf in leaves(state).items()
            if not any(re.search(pattern, path) for pattern, _ in sharding.RULES)
        ],
    }
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict:
    """What a process of eight simulated devices says."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


METHODS = ["DiffusionLM", "Autoregressive"]


def test_a_mesh_uses_all_devices(told: dict) -> None:
    assert told["devices"] == 8
    assert told["shapes"] == [[8, 1, 1], [4, 2, 1], [2, 2, 2], [2, 2, 2]]


def test_a_mesh_that_does_not_fit_is_refused(told: dict) -> None:
    assert told["refused"] == [[3, 1, 1], [-1, 3, 1], [-1, -1, 1], [8, 2, 1], [-1, 0, 1], [4, 1, 1]]
    with pytest.raises(UserError, match="does not fit"):
        make_mesh(data=jax.device_count() + 1)


@pytest.mark.parametrize("method", METHODS)
def test_every_matrix_has_a_rule(told: dict, method: str) -> None:
    """Parameters, moments and means; what no rule names is a count, a vector or a small table."""
    unruled = told[method]["unruled"]
    assert not [path for path, rank, size in unruled if rank > 1 and "relative_bias" not in path]
    split = told[method]["split"]
    for kind in ("params/", "ema/", "opt/"):
        for matrix in ("query/kernel", "out/kernel", "up/kernel", "down/kernel", "embedding"):
            assert any(path.startswith(kind) and path.endswith(matrix) for path in split), (kind, matrix)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_on_eight_devices_is_the_step_on_one(told: dict, method: str) -> None:
    found = told[method]
    assert found["loss"][0] == pytest.approx(found["loss"][1], abs=1e-4)
    assert found["worst"] < 1e-4
    assert found["worst_moment"] < 1e-6


def test_a_large_array_without_a_rule_is_refused() -> None:
    mesh = make_mesh()
    shapes = {"small": jax.ShapeDtypeStruct((8,), np.float32), "bias": jax.ShapeDtypeStruct((2**20,), np.float32)}
    assert all(place.is_fully_replicated for place in shardings(mesh, shapes).values())
    with pytest.raises(UserError, match="No sharding rule matches 'novel'"):
        shardings(mesh, {"novel": jax.ShapeDtypeStruct((2**20,), np.float32)})
