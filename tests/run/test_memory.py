"""Memory: what is freed is kept, so that asking for it again touches no new page."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from jtextdiff.run.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**23)  # 64 MiB, written to
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults()
assert keep_freed_memory()
np.ones(2**23)
print(without, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_not_faulted_in_again() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    without, kept = map(int, done.stdout.split())
    assert kept < 0.05 * without
