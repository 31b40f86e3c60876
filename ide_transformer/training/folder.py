"""The folder of a run and the checkpoints in it."""

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

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
