"""The memory of the machine: its size, checks against it, and its allocator."""

import contextlib
import ctypes
import math
import os

from .errors import InputError


# The environment variable that sets another bound, in GiB.
BOUND = "IDE_TRANSFORMER_MEMORY"


def memory_bound() -> int | None:
    """The limit on memory in bytes: `IDE_TRANSFORMER_MEMORY` in GiB, else the memory of the
    machine; `None` if it is unknown."""
    if text := os.environ.get(BOUND):
        with contextlib.suppress(ValueError):
            if 0 < (bound := float(text) * 2**30) < math.inf:
                return int(bound)
        raise InputError(f"{BOUND}={text}: set a number of GiB above 0, for example 64.")
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def check_bytes(name: str, size: int | float, advice: str = "Reduce it.") -> None:
    """Raises `InputError` if `name` needs more than the bound."""
    bound = memory_bound()
    if bound is not None and size > bound:
        raise InputError(
            f"{name} needs at least {_gibibytes(size)} of memory, got {_gibibytes(bound)}. "
            f"{advice} To raise this bound set {BOUND}={math.ceil(size / 2**30)} (GiB) in the "
            "environment."
        )


def _gibibytes(size: int | float) -> str:
    return f"{size / 2**30:,.3g} GiB" if size < 2**43 else f"{size / 2**30:,.0f} GiB"


def keep_freed_memory() -> None:
    """Tells the C library of GNU/Linux to reuse freed memory, up to 2 GiB.

    By default it returns blocks of 32 MiB and more to the kernel, which clears each of their
    pages when the next step touches it. All threads share one arena, since other arenas
    return every block above 64 MiB.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        # M_MMAP_MAX, M_TRIM_THRESHOLD and M_ARENA_MAX of malloc.h.
        library.mallopt(-4, 0)
        library.mallopt(-1, 2**31 - 1)
        library.mallopt(-8, 1)
