"""Resident memory of this process, where the operating system (Linux) tells."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path


_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_resident_mebibytes(work: Callable[[], object]) -> float | None:
    """By how much the memory of this process rises at most while `work` runs; `None` where
    that cannot be known."""
    if not (_STATUS.exists() and _RESET.exists()):
        return None
    gc.collect()
    # What was freed goes back to the system, or it would be used again without a rise.
    ctypes.CDLL(None).malloc_trim(0)
    before = _read("VmRSS")
    _RESET.write_text("5")
    work()
    return _read("VmHWM") - before


def _read(name: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)
