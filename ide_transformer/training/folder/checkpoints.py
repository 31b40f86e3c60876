"""The checkpoints of a run, each with a checksum of every array."""

import functools as ft
import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ...errors import GO_ON, InputError
from ..steps.layout import gather, primary, wait_for_all
from .metrics import read_metrics
from .run_folder import RunFolder


T = TypeVar("T", bound=PyTree)

# A checkpoint of a run: the newest, the one with the lowest validation loss, or of a step.
Which = Literal["newest", "best"] | int

# Version of the description beside the arrays.
_FORMAT = 2


class Checkpoints:
    """The checkpoints of a run. Orbax writes them in the background; leaving the context waits
    for it.

    A checkpoint holds the arrays of the training state, among them the step and the random key,
    and a description: the version of the format, the step, the run, and the checksum of each
    array. It appears when it is complete, so the process may be killed at any moment.

    **Arguments:**

    - `keep`: the number of newest checkpoints to keep. `None` only reads.
    - `keep_best`: also keep the checkpoint with the lowest validation loss.
    """

    def __init__(self, folder: RunFolder, *, keep: int | None = None, keep_best: bool = False):
        # Slow to import.
        import orbax.checkpoint as ocp

        self._orbax = ocp
        self._run = folder
        self._keep = keep
        self._keep_best = keep_best
        self._folder = folder.checkpoints
        self._writes = writes = keep is not None and primary()
        process = jax.process_index()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            create=False,
            save_root_metadata=writes,
            cleanup_tmp_directories=writes,
            # Each process reads for itself, and one writes.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                process, {process}, f"process {process}"
            ),
        )
        handlers = {
            "default": ocp.StandardCheckpointHandler(),
            "arrays": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(
            _literal_path(self._folder.resolve()), options=options, item_handlers=handlers
        )
        # Why each step of the last `restore` is damaged.
        self._damaged: dict[int, str] = {}

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            self._manager.close()
        except Exception as error:
            if kind is None or issubclass(kind, KeyboardInterrupt):
                raise self._write_error(error) from None

    @ft.cached_property
    def losses(self) -> dict[int, float]:
        """The logged validation losses by step. The training loop adds new ones."""
        lines = read_metrics(self._run.metrics)
        losses = {x["step"]: x["validation_loss"] for x in lines if "validation_loss" in x}
        return {step: math.nan if loss is None else loss for step, loss in losses.items()}

    def newest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def best(self, steps: Sequence[int] | None = None) -> int | None:
        """The step with the lowest validation loss, among these or all checkpoints."""
        steps = self._manager.all_steps() if steps is None else steps
        measured = [s for s in steps if math.isfinite(self.losses.get(s, math.nan))]
        return min(measured, key=self.losses.__getitem__, default=None)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which checkpoints orbax keeps; see its `PreservationPolicy`."""
        steps = [x.step for x in checkpoints]
        best = self.best(steps) if self._keep_best else None
        newest = sorted(steps)[-cast(int, self._keep) :]
        return [step in newest or step == best for step in steps]

    def save(self, step: int, state: PyTree) -> None:
        """Writes the arrays of `state` in the background. All processes of a run must call it.
        Raises `InputError` if this or an earlier checkpoint could not be written."""
        leaves = jax.tree.leaves(gather(state))
        if not self._writes or step == self.newest():
            return
        description = {
            "format": _FORMAT,
            "step": step,
            "run": self._run.identity,
            "arrays": list(map(_describe, leaves)),
        }
        args = self._orbax.args
        items = dict(default=args.StandardSave(leaves), arrays=args.JsonSave(description))
        try:
            self._manager.save(step, args=args.Composite(**items))
        except Exception as error:  # the libraries pass on any error of a file system
            raise self._write_error(error) from None

    def restore(self, like: Callable[[int], T], checkpoint: Which = "newest") -> T:
        """Restores a checkpoint, or with a warning the last intact one before it. `like`
        returns the structure of the state after a step. Raises `InputError` if none is
        intact."""
        self._manager.wait_until_finished()
        wait_for_all("checkpoints")
        self._manager.reload()
        self._damaged.clear()
        for step in self._steps_from(checkpoint):
            try:
                state = self._read(step, like(step))
            except Exception as error:  # a damaged file leads to any error
                reason = f"{self._folder}/{step} is damaged: {_first_line(error)}"
                self._damaged[step] = reason
                continue
            for reason in self._damaged.values():
                warnings.warn(f"{reason}; checkpoint {step} is taken instead.", stacklevel=2)
            return state
        if not self._damaged:
            raise InputError(f"{self._run.path} has no checkpoint yet; resume it by --resume.")
        raise InputError(
            f"{self._folder} holds no checkpoint that can be read: "
            f"{'; '.join(self._damaged.values())}. Restore one from a copy, or train the run "
            "again."
        )

    def set_damaged_aside(self) -> None:
        """Moves damaged checkpoints to another folder, so that new ones can be written."""
        for step in self._damaged if self._writes else ():
            aside = self._folder.with_name(f"{self._folder.name}-damaged")
            aside.mkdir(exist_ok=True)
            (self._folder / str(step)).rename(aside / f"{step}-{time.time_ns()}")
        self._damaged.clear()
        self._manager.reload()

    def _steps_from(self, checkpoint: Which) -> list[int]:
        """The steps to try, in order."""
        steps = sorted(self._manager.all_steps(), reverse=True)
        if checkpoint == "newest":
            return steps
        first = self.best() if checkpoint == "best" else checkpoint
        if first not in steps:
            names = ", ".join(map(str, steps[::-1])) or "none"
            raise InputError(
                f"{self._folder}: there is no checkpoint {checkpoint}; it has {names}."
            )
        return [step for step in steps if step <= first]

    def _read(self, step: int, expected: T) -> T:
        """Reads a checkpoint. Any error means damage, or other shapes than `expected`."""
        args = self._orbax.args
        item = args.Composite(arrays=args.JsonRestore())
        description = self._manager.restore(step, args=item)["arrays"]
        descriptions = description["arrays"]
        if description["format"] != _FORMAT:
            raise ValueError("was written by another release of ide_transformer")
        if description["step"] != step:
            raise ValueError(f"holds the state of step {description['step']}")
        if self._run.identity not in (None, description["run"]):
            raise ValueError("belongs to another run")
        leaves, structure = jax.tree.flatten(expected)
        if [x["shape"] for x in descriptions] != [list(x.shape) for x in leaves]:
            raise ValueError("does not hold the model of this configuration")
        like = [np.empty(x["shape"], x["dtype"]) for x in descriptions]
        item = args.Composite(default=args.StandardRestore(like))
        arrays = self._manager.restore(step, args=item)["default"]
        if descriptions != list(map(_describe, arrays)):
            raise ValueError("an array does not have its checksum")
        pairs = zip(arrays, leaves, strict=True)
        return structure.unflatten(jnp.asarray(x, y.dtype) for x, y in pairs)

    def _write_error(self, error: Exception) -> InputError:
        steps = map(str, sorted(self._manager.all_steps()))
        intact = ", ".join(x for x in steps if (self._folder / x).exists()) or "none"
        return InputError(
            f"{self._folder}: a checkpoint could not be written: {_first_line(error)}. Intact: "
            f"{intact}. Make room there, then {GO_ON}."
        )


def _literal_path(folder: Path) -> Any:
    """A folder for orbax, which would otherwise read brackets in its name as a pattern."""
    from etils import epath

    kind: Any = type(epath.Path(folder))

    class Folder(kind):
        def glob(self, pattern: str) -> Iterator[Any]:
            return (self / name for name in glob(pattern, root_dir=self))

    return Folder(folder)


def _describe(array: Array | np.ndarray) -> dict[str, Any]:
    x = np.asarray(array)
    checksum = hashlib.sha256(x.tobytes()).hexdigest()
    return {"shape": list(x.shape), "dtype": x.dtype.name, "checksum": checksum}


def _first_line(error: Exception) -> str:
    name = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return f"{name}{error}".split("\n")[0][:200]
