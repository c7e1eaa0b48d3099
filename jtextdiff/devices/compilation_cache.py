"""The cache of compiled programs on disk."""

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

from jtextdiff.data.cache import cache_root


def enable_compilation_cache() -> None:
    """Caches compiled programs next to the tokenised texts, below $JTEXTDIFF_CACHE, for later processes.

    Small programs are cached too, since a training run starts with many of them.
    """
    jax.config.update("jax_compilation_cache_dir", str(cache_root() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@contextlib.contextmanager
def compilation_cache_disabled() -> Iterator[None]:
    """Compiles without the cache inside the context, so that a benchmark times a first compilation."""
    enabled = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # jax reads the setting once per process, at its first compilation
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()
