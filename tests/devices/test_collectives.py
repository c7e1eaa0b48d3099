"""Collectives: what a compiled program sends is counted as often as it is sent."""

import json
import subprocess
import sys

from jtextdiff.devices.collectives import Traffic, collectives

PROGRAM = """HloModule jit_step

%body.1 (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %ag = f32[8,4]{1,0} all-gather(f32[1,4]{1,0} %x), dimensions={0}
  ROOT %t = (s32[], f32[8,4]{1,0}) tuple(%i, %ag)
}

%yes (p: f32[2]) -> f32[2] {
  ROOT %r = (bf16[2]{0}, pred[3]{0}) all-reduce(bf16[2]{0} %p, pred[3]{0} %q), to_apply=%sum
}

ENTRY %main (x: f32[1,4]) -> f32[8,4] {
  %w = (s32[], f32[8,4]{1,0}) while(%init), condition=%c, body=%body.1, backend_config={"known_trip_count":{"n":"12"}}
  %c = f32[2]{0} conditional(%p, %a, %b), branch_computations={%yes, %no}
  %big = (f32[10]{0}, f32[100]{0}) all-gather-start(f32[10]{0} %y), dimensions={0}
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%w), index=1
}
"""

EIGHT = """
import jax, jax.numpy as jnp, json
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jtextdiff.devices.collectives import collectives
jax.config.update("jax_num_cpu_devices", 8)
mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
rows = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, P("x")))
print(json.dumps(collectives(jax.jit(lambda x: x.sum(0)).lower(rows).compile().as_text())))
"""


def test_loops_count_as_often_as_they_run_and_tuples_whole() -> None:
    assert collectives(PROGRAM) == {
        "all-gather": Traffic(times=13, bytes=12 * 128 + 400, largest=400),
        "all-reduce": Traffic(times=1, bytes=4 + 3, largest=7),
    }


def test_a_program_of_one_device_sends_nothing() -> None:
    assert collectives("ENTRY %main (x: f32[4]) -> f32[4] {\n  ROOT %x = f32[4]{0} parameter(0)\n}") == {}


def test_the_text_that_this_jax_writes_is_read() -> None:
    """The sum over rows of eight devices is one all-reduce of 16 float32."""
    done = subprocess.run([sys.executable, "-c", EIGHT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"all-reduce": [1, 64, 64]}
