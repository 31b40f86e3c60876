"""The checkpoints of a run, written by orbax."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from ..errors import InputError


class Checkpoints:
    """The newest `keep` checkpoints of a run.

    A checkpoint becomes visible only when it is complete, so a process may be killed at any
    moment. Use as a context manager: leaving it waits until all files are written.
    """

    def __init__(self, folder: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._folder = folder
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree) -> None:
        """Writes the arrays of `state` in the background."""
        if step != self.latest():
            self._manager.save(step, args=ocp.args.StandardSave(_arrays(state)))

    def restore(self, like: PyTree) -> PyTree:
        """The newest checkpoint, in the structure of `like`.

        **Raises:** `InputError` if there is none, or it is of another model.
        """
        step = self.latest()
        if step is None:
            raise InputError(f"{self._folder} holds no checkpoint.")
        arrays = _arrays(like)
        try:
            restored = self._manager.restore(step, args=ocp.args.StandardRestore(arrays))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self._folder}/{step} does not hold the model of this configuration: {error}"
            ) from None
        structure = jax.tree.structure(like)
        leaves = [
            _as_key(new, old) for new, old in zip(restored, jax.tree.leaves(like), strict=True)
        ]
        return jax.tree.unflatten(structure, leaves)


def _arrays(state: PyTree) -> list:
    """The leaves of a tree of arrays, random keys as their data."""
    return [jax.random.key_data(x) if _is_key(x) else x for x in jax.tree.leaves(state)]


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _as_key(new: Any, old: Any) -> Any:
    return jax.random.wrap_key_data(new) if _is_key(old) else new
