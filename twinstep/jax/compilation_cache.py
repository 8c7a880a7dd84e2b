"""Keeps compiled programs from run to run, in a folder: compiling takes longer than training.

Source: https://docs.jax.dev/en/latest/persistent_compilation_cache.html
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


def enable(folder: Path) -> None:
    """Uses `folder` from now on; one that JAX was told of by its own setting is left in force.

    Where nothing can be written there, programs are compiled anew, as without it.
    """
    if getattr(jax.config, "jax_compilation_cache_dir"):  # noqa: B009 - no attribute to types
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.R_OK | os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # the small ones too: there are many, and all of them are in the way of the first result
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Compiles every program anew in the meantime, also where the user's own setting keeps them."""
    before = getattr(jax.config, "jax_enable_compilation_cache")  # noqa: B009 - no attribute to types
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX looks at the setting once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()
