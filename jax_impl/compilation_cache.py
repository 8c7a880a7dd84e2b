"""Keeps compiled programs from run to run, in a folder: compiling takes longer than training.

Source: https://docs.jax.dev/en/latest/persistent_compilation_cache.html
"""

import contextlib
import os
from pathlib import Path

import jax


def keep(folder: Path) -> None:
    """Uses `folder` from now on; one that JAX was told of by its own setting is left in force.

    Where nothing can be written there, programs are compiled anew, as without it.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.R_OK | os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # the small ones too: there are many, and all of them are in the way of the first result
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
