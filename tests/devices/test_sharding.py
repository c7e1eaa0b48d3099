"""Sharding: every array of a run has a rule, and results on any mesh equal those of one device."""

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
EIGHT = {"fsdp": [1, 8, 1], "tensor": [2, 1, 4]}
ALL_AXES = {"all": [2, 2, 2]}


def start(**settings: Any) -> subprocess.Popen[str]:
    """Starts a process with simulated devices; see mesh_world.py."""
    command = [sys.executable, str(mesh_world.__file__), json.dumps(settings)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def assert_equal(one: dict[str, Any], many: dict[str, Any], *, rtol: float, same: float) -> None:
    """Asserts equal losses to `rtol` and at least a share `same` of equal tokens, for every family and mesh."""
    for family, meshes in many.items():
        for mesh, result in meshes.items():
            expected = one[family]["one"]
            np.testing.assert_allclose(result["losses"], expected["losses"], rtol=rtol, err_msg=f"{family} {mesh}")
            equal = np.mean(np.asarray(result["tokens"]) == np.asarray(expected["tokens"]))
            assert equal >= same, (family, mesh, equal)


@pytest.mark.slow
def test_eight_devices_equal_one() -> None:
    """Ten steps in two microbatches with dropout, and samples whose last batch is uneven. In single precision one
    family is enough, since double precision shows for each that the arithmetic is the same."""
    settings = {"double": False, "steps": 10, "methods": ["embedding"]}
    one = results_of(start(devices=1, meshes=ONE, **settings))
    assert_equal(one, results_of(start(devices=8, meshes=ALL_AXES, **settings)), rtol=1e-5, same=0.999)


@pytest.mark.slow
def test_devices_and_processes_equal_one_in_double_precision() -> None:
    """One process with eight devices divides parameters in two ways; two processes with four each divide all axes."""
    settings = {"double": True, "steps": 4}
    one = results_of(start(devices=1, meshes=ONE, **settings))
    assert_equal(one, results_of(start(devices=8, meshes=EIGHT, **settings)), rtol=1e-8, same=1.0)
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    two = [start(devices=4, meshes=ALL_AXES, process=[address, 2, i], **settings) for i in range(2)]
    first, second = map(results_of, two)
    assert_equal(one, first, rtol=1e-8, same=1.0)
    assert_equal(one, second, rtol=1e-8, same=1.0)
    assert first["discrete"]["all"]["mine"] == 16, "each process reads its half of the rows"


@pytest.mark.parametrize("family", mesh_world.METHODS)
def test_every_matrix_has_a_rule(family: str) -> None:
    """Parameters, moments and running means. Arrays without a rule are counts, vectors or small."""
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
def test_sharded_parameters_are_an_eighth_per_device_and_never_gathered_at_once(tmp_path: Path) -> None:
    """From the compiled step of a config: the bytes of the state and of the largest gather."""
    command = [sys.executable, "-m", "jtextdiff.train", "--config", "configs/diffusion_lm.py", "--dry_run"]
    where = ["--devices=8", "--config.mesh.data=1", "--config.mesh.fsdp=8", f"--workdir={tmp_path}"]
    done = subprocess.run([*command, *where], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    parameter_bytes, bytes_per_device = 4 * report["parameters"], report["bytes_a_device"]
    assert bytes_per_device["parameters"] + bytes_per_device["optimiser"] <= (1 / 8 + 0.05) * 3 * parameter_bytes
    gathers = report["collectives"]["all-gather"]
    assert gathers["bytes"] > parameter_bytes, "every parameter is gathered for both passes"
    assert gathers["largest"] < parameter_bytes / 8
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


def test_the_error_for_a_batch_that_does_not_divide_suggests_one_that_does() -> None:
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
