"""The memory of the machine: how much there is, what is refused, and the allocator."""

import contextlib
import ctypes
import math
import os

from .errors import InputError


# The environment variable that gives another bound, in GiB.
BOUND = "IDE_TRANSFORMER_MEMORY"


def memory_bound() -> int | None:
    """The most bytes that may be asked for: what `IDE_TRANSFORMER_MEMORY` says in GiB,
    else the memory of the machine; `None` where it is not known."""
    if given := os.environ.get(BOUND):
        with contextlib.suppress(ValueError):
            if 0 < (bound := float(given) * 2**30) < math.inf:
                return int(bound)
        raise InputError(f"{BOUND}={given}: give a number of GiB above 0, for example 64.")
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def check_bytes(what: str, needed: int | float, advice: str = "Give less.") -> None:
    """Raises `InputError` if `what` needs more bytes than there are."""
    bound = memory_bound()
    if bound is not None and needed > bound:
        raise InputError(
            f"{what} needs at least {gibibytes(needed)} of memory, and there are "
            f"{gibibytes(bound)}. {advice} To raise this bound set the environment variable "
            f"{BOUND}, in GiB: {BOUND}={math.ceil(needed / 2**30)}."
        )


def gibibytes(number: int | float) -> str:
    return f"{number / 2**30:,.3g} GiB" if number < 2**43 else f"{number / 2**30:,.0f} GiB"


def keep_freed_memory() -> None:
    """Tells the C library of GNU/Linux to keep what is freed, up to 2 GiB, for the next step.
    By itself it gives blocks of 32 MiB and more back to the kernel, which clears each of their
    pages when the next step touches it.

    One arena for all threads would also keep blocks of more than 64 MiB, but threads wait for
    each other there: a step of a small model takes a fifth more time on two cores.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h.
        library.mallopt(-4, 0)
        library.mallopt(-1, 2**31 - 1)
