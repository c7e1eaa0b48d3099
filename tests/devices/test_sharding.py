"""Devices: every array of a run has its place on a mesh, and what is computed there is what one device computes."""

import functools
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support import mesh_world
from support.runs import ROOT

from jtextdiff.cli.errors import UserError
from jtextdiff.devices.sharding import AXES, RULES, _name, check_batch, local_row_indices, make_mesh, mesh_of, shardings
from jtextdiff.training.train_step import init_state

ONE = {"one": [1, 1, 1]}
EIGHT = {"data": [8, 1, 1], "fsdp": [1, 8, 1], "tensor": [2, 1, 4], "all": [2, 2, 2]}


def start(**asked: Any) -> subprocess.Popen[str]:
    """A process of simulated devices; see mesh_world.py."""
    command = [sys.executable, str(mesh_world.__file__), json.dumps(asked)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def agree(one: dict[str, Any], many: dict[str, Any], *, rtol: float, same: float) -> None:
    """Losses within `rtol`, and at least a share `same` of the tokens, of every family on every mesh."""
    for family, meshes in many.items():
        for mesh, found in meshes.items():
            expected = one[family]["one"]
            np.testing.assert_allclose(found["losses"], expected["losses"], rtol=rtol, err_msg=f"{family} {mesh}")
            kept = np.mean(np.asarray(found["tokens"]) == np.asarray(expected["tokens"]))
            assert kept >= same, (family, mesh, kept)


@pytest.mark.slow
def test_eight_devices_compute_what_one_does() -> None:
    """Ten steps of each family in two microbatches with dropout, and samples whose last batch is uneven."""
    one = told_by(start(devices=1, double=False, steps=10, meshes=ONE))
    meshes = {name: EIGHT[name] for name in ("fsdp", "all")}
    agree(one, told_by(start(devices=8, double=False, steps=10, meshes=meshes)), rtol=1e-5, same=0.999)


@pytest.mark.slow
def test_in_double_precision_devices_and_processes_make_no_difference() -> None:
    one = told_by(start(devices=1, double=True, steps=50, meshes=ONE))
    agree(one, told_by(start(devices=8, double=True, steps=50, meshes=EIGHT)), rtol=1e-8, same=1.0)
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    two = [start(devices=4, double=True, steps=50, meshes=EIGHT, process=[address, 2, i]) for i in range(2)]
    first, second = map(told_by, two)
    agree(one, first, rtol=1e-8, same=1.0)
    agree(one, second, rtol=1e-8, same=1.0)
    assert first["discrete"]["data"]["mine"] == 16, "each process reads its half of the rows"


@pytest.mark.parametrize("family", mesh_world.METHODS)
def test_every_matrix_has_a_rule(family: str) -> None:
    """Parameters, moments and means; what no rule names is a count, a vector or small."""
    method, mesh = mesh_world.METHODS[family], jax.sharding.AbstractMesh((1, 8, 1), AXES)
    shapes = jax.eval_shape(functools.partial(init_state, method, mesh_world.OPTIM), jax.random.key(0))
    leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    ruled = lambda path: any(re.search(pattern, path) for pattern, _ in RULES)
    assert not [
        path for path, leaf in leaves.items() if leaf.ndim > 1 and not ruled(path) and not path.endswith("law/scale")
    ]
    places = jax.tree_util.tree_leaves_with_path(shardings(mesh, shapes))
    split = [_name(path) for path, place in places if not place.is_fully_replicated]
    for kind in ("params/", "ema/", "opt/"):
        for matrix in ("query/kernel", "out/kernel", "up/kernel", "down/kernel", "embedding"):
            assert any(path.startswith(kind) and path.endswith(matrix) for path in split), (kind, matrix)


@pytest.mark.slow
def test_divided_parameters_are_an_eighth_on_each_device_and_never_gathered_at_once(tmp_path: Path) -> None:
    """Read off the compiled step of a config: the state's bytes, and the largest gather of it."""
    command = [sys.executable, "-m", "jtextdiff.train", "--config", "configs/diffusion_lm.py", "--dry_run"]
    where = ["--devices=8", "--config.mesh.data=1", "--config.mesh.fsdp=8", f"--workdir={tmp_path}"]
    done = subprocess.run([*command, *where], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    whole, kept = 4 * told["parameters"], told["bytes_a_device"]
    assert kept["parameters"] + kept["optimiser"] <= (1 / 8 + 0.05) * 3 * whole
    gathers = told["collectives"]["all-gather"]
    assert gathers["bytes"] > whole, "every parameter is gathered for both passes"
    assert gathers["largest"] < whole / 8
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"


def test_a_mesh_that_does_not_fit_is_refused() -> None:
    for sizes in (
        (3, 1, 1),
        (-1, 3, 1),
        (-1, -1, 1),
        (jax.device_count() + 1, 1, 1),
        (-1, 0, 1),
        (-1, -1, jax.device_count()),
    ):
        with pytest.raises(UserError, match="does not fit"):
            make_mesh(*sizes)


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does() -> None:
    mesh = jax.sharding.AbstractMesh((4, 2, 1), ("data", "fsdp", "tensor"))
    check_batch(mesh, 32, 4)
    with pytest.raises(UserError, match=r"batch_size = 30 rows do not divide over 8 devices.*batch_size=24"):
        check_batch(mesh, 30, 1)
    with pytest.raises(UserError, match=r"in optim.accumulate = 4 parts each.*batch_size=32"):
        check_batch(mesh, 40, 4)


def test_one_device_has_no_mesh_and_all_rows() -> None:
    assert mesh_of({"x": jax.numpy.zeros(3)}) is None
    assert local_row_indices(make_mesh(), 6).tolist() == list(range(6))


def test_a_large_array_without_a_rule_is_refused() -> None:
    mesh = make_mesh()
    shapes = {"small": jax.ShapeDtypeStruct((8,), np.float32), "bias": jax.ShapeDtypeStruct((2**20,), np.float32)}
    assert all(place.is_fully_replicated for place in shardings(mesh, shapes).values())
    with pytest.raises(UserError, match="No sharding rule matches 'novel'"):
        shardings(mesh, {"novel": jax.ShapeDtypeStruct((2**20,), np.float32)})
