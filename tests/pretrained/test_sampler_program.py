"""A serialised sampler draws the texts of the model, by jax alone."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mesh_world
from support.cases import slow_but
from support.command_line import run
from support.runs import trained

import jtextdiff as jtd
from jtextdiff.cli.errors import UserError
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.sample_batches import run_batched
from jtextdiff.methods.components.types import nothing_given
from jtextdiff.pretrained.sampler_program import sampler_program


@pytest.mark.parametrize("family", slow_but(["discrete"], mesh_world.METHODS))
def test_a_program_draws_what_the_model_draws(family: str) -> None:
    method, num, length = mesh_world.METHODS[family], 3, mesh_world.TEXT_SPEC.length
    params = method.init(jax.random.key(0))
    program = jax.export.deserialize(bytearray(sampler_program(method, params, num, ["cpu"]))).call
    for seed in (0, 5):
        keys = keys_for(jax.random.key(seed), jnp.arange(num))
        drawn = run_batched(method, "sample", params, keys, nothing_given(num, length), [None])
        np.testing.assert_array_equal(program(np.uint32(seed)), drawn.tokens)
    assert np.any(program(np.uint32(0)) != program(np.uint32(5)))


@pytest.mark.slow
def test_the_lines_of_its_readme_print_the_texts(tmp_path: Path) -> None:
    shutil.copytree(trained("masked.py"), tmp_path / "run")
    (tmp_path / "out").mkdir()
    done = run("export", "../run", ".", "--program", "--num=5", "--platforms", "cpu", "cpu", cwd=tmp_path / "out")
    assert done.returncode == 0 and "5 texts for cpu ->" in done.stderr, done.stderr
    lines = re.search(r"```python\n(.*)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    assert lines is not None
    without_library = f"import sys; sys.modules['jtextdiff'] = None\n{lines[1]}"
    command = [sys.executable, "-c", without_library]
    printed = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.splitlines() == jtd.load(tmp_path / "run").sample(5)


def test_settings_that_a_program_cannot_have_are_refused(tmp_path: Path) -> None:
    method = mesh_world.METHODS["discrete"]
    for num, platforms, message in ((0, ["cpu"], "num must be at least 1"), (1, ["gpu"], "among cpu, cuda")):
        with pytest.raises(UserError, match=message):
            sampler_program(method, {}, num, platforms)
    done = run("export", "run", "out", "--num=5", cwd=tmp_path)
    assert done.returncode == 2 and "--num, --platforms and --override are for --program" in done.stderr
