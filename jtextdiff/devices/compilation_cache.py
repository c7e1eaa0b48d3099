"""Programs: what was compiled once is kept on disk, so that the next process need not compile it."""

import jax

from jtextdiff.data.cache import cache_root


def remember_programs() -> None:
    """Keeps compiled programs beside the prepared texts, below $JTEXTDIFF_CACHE. Small ones too: a training starts with
    many of them."""
    jax.config.update("jax_compilation_cache_dir", str(cache_root() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
