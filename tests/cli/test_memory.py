"""Freed memory stays with the process, so that allocating it again faults no new pages."""

import platform
import subprocess
import sys

import pytest

NAME, VERSION = platform.libc_ver()
GLIBC = tuple(map(int, VERSION.split(".")[:2])) if NAME == "glibc" else (0, 0)
FAULTS = """
import resource
import numpy as np
from jtextdiff.cli.main import keep_freed_memory

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


@pytest.mark.skipif(GLIBC < (2, 35), reason="not glibc, or one that keeps no blocks above 32 MiB")
def test_freed_memory_is_not_faulted_in_again() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    without, faults = map(int, done.stdout.split())
    assert faults < 0.05 * without
