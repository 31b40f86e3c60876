"""Several processes that train one run."""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from ..errors import InputError
from .parallel import ParallelConfig


T = TypeVar("T", bound=PyTree)

# The errors of JAX that say nothing of other processes.
_OWN_FAULTS = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED")


def start(parallel: ParallelConfig) -> None:
    """Joins the processes of a run, before anything is computed; once for each process. Where
    they do not all appear in time, it says so and ends this process.

    **Raises:** `InputError` where nothing says which processes these are, or it comes too late.
    """
    if parallel.processes is None or jax.distributed.is_initialized():
        return
    rank, seconds = parallel.rank, parallel.timeout
    if rank is None and (given := os.environ.get("JAX_PROCESS_ID")):
        if not given.isdecimal():
            raise InputError(f"JAX_PROCESS_ID={given}: the rank of a process is 0, 1, 2, ….")
        rank = int(given)
    # JAX aborts a process that waits in vain, without saying for what; this one is first.
    absent = threading.Timer(seconds, _end_without_the_others, (parallel,))
    absent.daemon = True
    absent.start()
    try:
        jax.distributed.initialize(
            parallel.coordinator,
            parallel.processes,
            rank,
            initialization_timeout=seconds + 10,
            heartbeat_timeout_seconds=seconds,
            shutdown_timeout_seconds=seconds,
        )
    except ValueError as error:
        raise InputError(
            f"parallel.processes={parallel.processes}: {error} Nothing here tells address and "
            "rank, as SLURM does; give parallel.coordinator=HOST:PORT and parallel.rank=0, 1, "
            "…, or JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID."
        ) from None
    except RuntimeError as error:
        raise InputError(
            f"parallel.processes={parallel.processes}: processes have to be joined before "
            f"anything is computed; call train first, or start scripts/train.py. JAX: {error}"
        ) from None
    finally:
        absent.cancel()


def _end_without_the_others(parallel: ParallelConfig) -> None:
    where = parallel.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "the coordinator")
    print(
        f"error: parallel.processes={parallel.processes}: they did not all appear at {where} "
        f"within {parallel.timeout} s (parallel.timeout). Start all of them, with the same "
        "address and with ranks from 0 on.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


@contextlib.contextmanager
def others_needed() -> Iterator[None]:
    """Says of an error in a collective operation what it means."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or str(error).startswith(_OWN_FAULTS):
            raise
        raise InputError(
            f"process {jax.process_index()}: another process of this run has ended or does not "
            f"answer ({str(error).splitlines()[0][:200]}). Start all of them again with "
            "--resume; the run goes on from its last checkpoint, also with fewer processes."
        ) from error


def primary() -> bool:
    """Whether this is the process that writes files."""
    return jax.process_index() == 0


def gathered(state: T) -> T:
    """A state whose arrays this process can read as a whole; all processes call it."""

    def whole(x: Any) -> Any:
        apart = isinstance(x, jax.Array) and not x.is_fully_addressable
        return multihost_utils.process_allgather(x, tiled=True) if apart else x

    return jax.tree.map(whole, state)


def wait_for_all(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_equal(values: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares values with those of the process that writes files, in all processes. Their
    names say what another process has where they differ."""
    if jax.process_count() == 1:
        return
    told = json.dumps(values)
    own, first = json.loads(told), json.loads(from_primary(told))
    differs = np.array([own[what] != first[what] for what in own])
    of_all = np.reshape(multihost_utils.process_allgather(differs), (-1, len(own)))
    if not of_all.any():
        return
    rank = jax.process_index() if differs.any() else int(np.argmax(of_all.any(axis=1)))
    what = [name for name, other in zip(own, of_all[rank], strict=True) if other]
    changed = [
        f"{key}: {own[name].get(key)!r} there, {first[name].get(key)!r} in process 0"
        for name in (what if differs.any() else [])
        for key in own[name] | first[name]
        if own[name].get(key) != first[name].get(key)
    ]
    raise InputError(
        f"process {rank} has {' and '.join(what)} than process 0"
        f"{' (' * bool(changed)}{'; '.join(changed)}{')' * bool(changed)}. Start all processes "
        "with the same options, files and release."
    )


def from_primary(text: str) -> str:
    """The text of the process that writes files."""
    if jax.process_count() == 1:
        return text
    own = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(own))))
    return bytes(multihost_utils.broadcast_one_to_all(np.resize(own, size))).decode()


def largest(number: int) -> int:
    """The largest of the numbers of all processes."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.array(number))))
