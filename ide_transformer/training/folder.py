"""The folder of a run and the checkpoints in it."""

import hashlib
import json
import re
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree

from ..errors import InputError
from ..pretrained import no_such
from ..reporting import write_json
from ..tasks import AbstractTask, AbstractTokenizer, load_tokenizer
from .config import Config
from .reading import dump_config, load_config


class RunFolder:
    """The files of a run in `runs/<name>/`.

    **Attributes:** `path`, and in it `config` (every key written out), `metrics`,
    `checkpoints`, `plots`, `summary`, `tokenizer`, `sample`, and `fingerprints` (checksums of
    the configuration and of the data with which it began).
    """

    def __init__(self, path: str | Path):
        self.path = path = Path(path)
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.plots = path / "plots"
        self.summary = path / "summary.json"
        self.tokenizer = path / "tokenizer.json"
        self.sample = path / "sample.txt"
        self.fingerprints = path / "fingerprints.json"

    def load_config(self) -> Config:
        """The configuration that the run was started with.

        **Raises:** `InputError` where there is no such run.
        """
        if not self.path.exists():
            raise no_such(self.path)
        if not self.config.is_file():
            raise InputError(f"{self.path} is not the folder of a run: it has no config.yaml.")
        return load_config(self.config)

    def load_tokenizer(self) -> AbstractTokenizer:
        """The tokenizer of the model.

        **Raises:** `InputError` where it has none.
        """
        if not self.tokenizer.exists():
            raise InputError(f"{self.path} has no tokenizer: it is no run on text.")
        return load_tokenizer(self.tokenizer)


class Checkpoints:
    """The newest two checkpoints of a run, written by orbax with a checksum of each array.

    A checkpoint becomes visible only when it is complete, so a process may be killed at any
    moment. Use as a context manager: leaving it waits until all files are written.
    """

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder.resolve(), options=options, item_names=("default", "arrays")
        )
        self._damaged: list[int] = []

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
            leaves = jax.tree.leaves(state)
            described = {"arrays": list(map(_described, leaves))}
            items = ocp.args.Composite(
                default=ocp.args.StandardSave(leaves), arrays=ocp.args.JsonSave(described)
            )
            self._manager.save(step, args=items)

    def restore(self, like: PyTree) -> PyTree:
        """The newest checkpoint that is intact, in the structure of `like`. A warning names
        each that is not.

        **Raises:** `InputError` if none is intact and of this model.
        """
        reasons = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                leaves = self._intact(step, jax.tree.leaves(like))
            except Exception as error:  # whatever a damaged file leads to
                reasons.append(f"{self._folder}/{step}: {_first_line(error)}")
                self._damaged.append(step)
                continue
            for reason in reasons:
                warnings.warn(f"{reason}; checkpoint {step} is taken instead.", stacklevel=2)
            return jax.tree.unflatten(jax.tree.structure(like), leaves)
        raise InputError(
            "; ".join([f"{self._folder} holds no checkpoint to go on from", *reasons])
        )

    def set_damaged_aside(self) -> None:
        """Moves the damaged checkpoints that `restore` has met out of the way of new ones."""
        for step in self._damaged:
            aside = self._folder.with_name(f"{self._folder.name}-damaged")
            aside.mkdir(exist_ok=True)
            (self._folder / str(step)).rename(aside / f"{step}-{time.time_ns()}")
        self._damaged.clear()
        self._manager.reload()

    def _intact(self, step: int, like: list[Array]) -> list[Array]:
        """The arrays of a checkpoint. An error of any kind says that it is damaged."""

        def read(item, **how):
            return self._manager.restore(step, args=ocp.args.Composite(**how))[item]

        if not (self._folder / str(step) / "arrays").is_dir():
            # The version before wrote no checksums.
            return read("default", default=ocp.args.StandardRestore(like))
        described = read("arrays", arrays=ocp.args.JsonRestore())["arrays"]
        if [x["shape"] for x in described] != [list(x.shape) for x in like]:
            raise ValueError("does not hold the model of this configuration")
        stored = [np.empty(x["shape"], x["dtype"]) for x in described]
        leaves = read("default", default=ocp.args.StandardRestore(stored))
        if described != list(map(_described, leaves)):
            raise ValueError("an array does not have its checksum")
        return [jnp.asarray(x, y.dtype) for x, y in zip(leaves, like, strict=True)]


def _described(array: Array | np.ndarray) -> dict[str, Any]:
    x = np.asarray(array)
    checksum = hashlib.sha256(x.tobytes()).hexdigest()
    return {"shape": list(x.shape), "dtype": x.dtype.name, "checksum": checksum}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]


def new_folder(config: Config, runs: Path) -> RunFolder:
    """A fresh folder `runs/<name>`, or `<name>-2`, `-3`, … where that is taken, also by a run
    that starts at the same time."""
    while True:
        folder = _numbered(config, runs, max(_numbers(config.name, runs), default=0) + 1)
        try:
            folder.path.mkdir(parents=True)
        except FileExistsError:
            if folder.path.is_dir():
                continue
            raise
        folder.checkpoints.mkdir()
        folder.config.write_text(dump_config(config), encoding="utf-8")
        return folder


def begin_data(folder: RunFolder, task: AbstractTask) -> None:
    """Writes the tokenizer and the fingerprints of a new run."""
    task.save(folder.tokenizer)
    write_json(folder.fingerprints, _fingerprints(folder, task))


def check_data(folder: RunFolder, task: AbstractTask) -> None:
    """Refuses to resume a run on other data or by an edited configuration. It writes nothing.

    **Raises:** `InputError` that says what has changed.
    """
    with tempfile.TemporaryDirectory() as there:
        tokenizer = Path(there) / "tokenizer.json"
        task.save(tokenizer)
        changed = tokenizer.exists() and tokenizer.read_bytes() != folder.tokenizer.read_bytes()
    what = ["its tokenizer"] if changed else []
    if folder.fingerprints.exists():
        then = json.loads(folder.fingerprints.read_text(encoding="utf-8"))
        now = _fingerprints(folder, task)
        what += [name for name in now if now[name] != then.get(name)]
    if what:
        raise InputError(
            f"--resume: {folder.path} began otherwise; {' and '.join(what)} changed since. "
            "Restore what it began with, or start a new run without --resume."
        )
    if not folder.checkpoints.is_dir():
        raise InputError(f"--resume: {folder.path} has lost its folder checkpoints.")


def _fingerprints(folder: RunFolder, task: AbstractTask) -> dict[str, str]:
    return {"its config.yaml": checksum(folder.config), "its data": task.fingerprint()}


def checksum(path: Path) -> str:
    """A checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def resumed_folder(config: Config, runs: Path) -> RunFolder:
    """The newest folder of a run of that name.

    **Raises:** `InputError` if there is none, or its configuration is another one.
    """
    numbers = _numbers(config.name, runs)
    if not numbers:
        raise InputError(
            f"--resume: there is no run {runs / config.name}; start it without --resume."
        )
    folder = _numbered(config, runs, max(numbers))
    old, new = _flat(folder.load_config()), _flat(config)
    changed = [
        f"{key}: {old.get(key)!r} there, {new.get(key)!r} here"
        for key in old | new
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise InputError(
            f"--resume: {folder.path} was started with another configuration "
            f"({'; '.join(changed)}). Give the same one, or start a new run without --resume."
        )
    return folder


def _numbered(config: Config, runs: Path, number: int) -> RunFolder:
    return RunFolder(runs / (config.name if number == 1 else f"{config.name}-{number}"))


def _numbers(name: str, runs: Path) -> list[int]:
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    found = [pattern.fullmatch(p.name) for p in runs.iterdir()] if runs.is_dir() else []
    return [int(match.group(1) or 1) for match in found if match]


def _flat(config: Config) -> dict[str, Any]:
    """The values of a configuration by their dotted keys."""
    tree = config.model_dump(mode="json")
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda x: type(x) is not dict)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}
