"""The compilation cache: programs are cached on disk, except where a benchmark times their compilation."""

from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jtextdiff.devices.compilation_cache import compilation_cache_disabled, enable_compilation_cache


def compile_new(constant: float) -> None:
    jax.jit(lambda x: x * constant + 0.123)(jax.numpy.ones(3)).block_until_ready()


def test_a_benchmark_compiles_without_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JTEXTDIFF_CACHE", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    enable_compilation_cache()
    compilation_cache.reset_cache()

    def num_cached() -> int:
        return len(list((tmp_path / "compiled").glob("*-cache")))

    try:
        compile_new(1.5)
        cached = num_cached()
        assert cached > 0
        with compilation_cache_disabled():
            compile_new(2.5)
            assert num_cached() == cached
        compile_new(3.5)
        assert num_cached() > cached
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()
