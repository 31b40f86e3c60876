"""What every script does around its one call."""

import os
import sys
from collections.abc import Callable

import jax

from ..errors import InputError
from ..packages import cache_folder


def keep_compiled() -> None:
    """Programs that take a second or more to compile are kept for the next process, in the
    cache folder, unless `JAX_COMPILATION_CACHE_DIR` says where."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))


def main_of(call: Callable[[], None]) -> None:
    """Runs a script: input that cannot be used is printed without a traceback, status 2."""
    keep_compiled()
    try:
        call()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
