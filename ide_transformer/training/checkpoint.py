from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from ..errors import InputError


class Checkpoints:
    """The newest two checkpoints of a run, written by orbax.

    A checkpoint becomes visible only when it is complete, so a process may be killed at any
    moment. Use as a context manager: leaving it waits until all files are written.
    """

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
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
            self._manager.save(step, args=ocp.args.StandardSave(jax.tree.leaves(state)))

    def restore(self, like: PyTree) -> PyTree:
        """The newest checkpoint, in the structure of `like`.

        **Raises:** `InputError` if there is none, or it is of another model.
        """
        step = self.latest()
        if step is None:
            raise InputError(f"{self._folder} holds no checkpoint.")
        arrays = ocp.args.StandardRestore(jax.tree.leaves(like))
        try:
            restored = self._manager.restore(step, args=arrays)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self._folder}/{step} does not hold the model of this configuration: {error}"
            ) from None
        return jax.tree.unflatten(jax.tree.structure(like), restored)
