"""Reads and checks the files of a run, and finds the run to resume."""

import contextlib
import functools as ft
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import jax

from ...errors import InputError, naming, whole_file
from ...packages import checksum
from ...pretrained.files import read_json
from ...reporting import write_json, write_text
from ...tasks import AbstractTask, AbstractTokenizer, load_tokenizer
from ..configuration.config import Config
from ..configuration.files import Trust, dump_config, find_run, load_config
from ..configuration.key import path_of
from ..configuration.text import names_of_code


def source(config: Config | None = None) -> str:
    """The version of the package with a checksum of its files, `0.1.0 (1a2b3c4d5e6f)`, then
    each module that the configuration names, with its checksum."""
    names = {} if config is None else names_of_code(config.as_tree())
    modules = {name.partition(":")[0] for values in names.values() for name in values}
    files = {x: getattr(sys.modules.get(x), "__file__", None) for x in sorted(modules)}
    checksums = [f"{x} ({checksum_of([Path(file)])})" for x, file in files.items() if file]
    return ", ".join([_package(), *checksums])


@ft.cache
def _package() -> str:
    files = sorted(Path(__file__).parents[2].rglob("*.py"))
    return f"{version('ide_transformer')} ({checksum_of(files)})"


def checksum_of(files: Sequence[Path]) -> str:
    """A short checksum of some files."""
    return hashlib.sha256("".join(map(checksum, files)).encode()).hexdigest()[:12]


# The most bytes of a sample, or of a figure.
_MOST_SHOWN = 2**24
# Keys of the file of fingerprints, as errors name them.
_DATA = "its data"
_SOURCES = "sources"
_CONFIG = "its config.yaml"
_START = "its start"


class RunFolder:
    """The files of a run in `runs/<name>/`, by its folder or its name in `runs`.

    `trust` says whether code that its configuration names, `package.module:Class`, may be
    imported; a configuration allows the code that it names itself.

    **Attributes:** `path`, and in it `config` (every key written out), `metrics`,
    `checkpoints`, `plots`, `summary`, `tokenizer`, `sample`, `lock` (held while the run is
    trained), `sizes` (sizes of the model that the data decide), `labels` (the number of each
    class, if classes are texts) and `fingerprints`: a unique number; checksums of the
    configuration, of the data and of imported weights; the code that trained it.
    """

    def __init__(self, path: str | Path, *, trust: Trust = False):
        self.path = path = find_run(path)
        self.trust = trust
        self._config: Config | None = None
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.plots = path / "plots"
        self.summary = path / "summary.json"
        self.tokenizer = path / "tokenizer.json"
        self.sample = path / "sample.txt"
        self.fingerprints = path / "fingerprints.json"
        self.sizes = path / "sizes.json"
        self.labels = path / "labels.json"
        self.lock = path / "lock"

    def load_config(self) -> Config:
        """The configuration of the run, which is read once.

        **Raises:** `InputError` if there is no such run, and for code that is not trusted.
        """
        if self._config is not None:
            return self._config
        if not self.path.exists():
            raise InputError(f"{self.path}: there is no such run or checkpoint.")
        if not self.config.is_file():
            raise InputError(f"{self.path} is not the folder of a run: it has no config.yaml.")
        for parent, _, names in os.walk(self.path):
            for path in (Path(parent, name) for name in names):
                # Its reading may never end. A file that was cut short may be gone by now.
                if not path.is_file() and path.exists():
                    raise InputError(f"{path} is a pipe or a device; remove it from the run.")
        self._config = load_config(self.config, trust=self.trust)
        return self._config

    @property
    def newest_step(self) -> int | None:
        """The step of the newest checkpoint, damaged or not."""
        names = [x.name for x in self.checkpoints.glob("*")]
        return max((int(name) for name in names if name.isdigit()), default=None)

    @property
    def recorded(self) -> dict[str, Any]:
        """The fingerprints. Raises `InputError` if they are lost."""
        return _read_json(self.fingerprints)

    @property
    def identity(self) -> str | None:
        """A unique number; `None` if it is lost."""
        try:
            return self.recorded.get("run")
        except InputError:
            return None

    @property
    def data(self) -> str | None:
        """The fingerprint of its data; `None` if none was recorded."""
        return self.recorded.get(_DATA)

    @property
    def start(self) -> dict[str, Any] | None:
        """The `Setup.origin` of the run; `None` if its weights were drawn."""
        return self.recorded.get(_START)

    @property
    def sources(self) -> list[str]:
        """The `source` of each of its starts."""
        sources = self.recorded.get(_SOURCES)
        if not sources or not isinstance(sources, list) or {*map(type, sources)} != {str}:
            raise InputError(f"{self.fingerprints} is damaged; restore it, or start a new run.")
        return sources

    def record_config(self, config: Config) -> None:
        """Records the configuration and the code with which training continues."""
        recorded_config = self.load_config()
        changed = config.replace(parallel=recorded_config.parallel)
        if changed != recorded_config:
            self.summary.unlink(missing_ok=True)
            with whole_file(self.config) as part:
                part.write_text(dump_config(changed), encoding="utf-8")
                # A kill may leave the old or the new file.
                checksums = [checksum(self.config), checksum(part)]
                write_json(self.fingerprints, {**self.recorded, _CONFIG: checksums})
            self._config = changed
        sources = self.sources
        if sources[-1] != (current := source(config)):
            write_json(self.fingerprints, {**self.recorded, _SOURCES: [*sources, current]})

    def load_summary(self) -> dict[str, Any]:
        """The summary that the run wrote at its end. Raises `InputError` for a damaged file."""
        summary = _read_json(self.summary)
        numbers = "steps", "parameters", "nfe", "seconds"
        wrong = {name for name, x in summary.items() if not is_logged(x)}
        wrong |= {name for name in numbers if summary.get(name) is None}
        if wrong := wrong | {"validation_loss"} - summary.keys():
            raise InputError(
                f"{self.summary} has no number for {', '.join(sorted(wrong))}; restore it, or "
                "remove it and resume the run."
            )
        return summary

    def load_sample(self) -> str | None:
        """The text that the run wrote at its end, if any. Replaces bytes that are not UTF-8."""
        _check_content(self.sample)
        if not self.sample.exists():
            return None
        return self.sample.read_text(encoding="utf-8", errors="replace").strip()

    def figures(self) -> list[Path]:
        """The figures that the run drew."""
        figures = sorted(self.plots.glob("*.png"))
        for path in (self.plots, *figures):
            _check_content(path)
        return figures

    def load_sizes(self) -> dict[str, Any] | None:
        """The `sizes` of the task, to build the model without the data; `None` if unknown."""
        return _as_tuples(_read_json(self.sizes)) if self.sizes.exists() else None

    def load_labels(self) -> list[str] | None:
        """The texts of the classes in the order of their numbers; `None` if they had none."""
        return [*_read_json(self.labels)] if self.labels.exists() else None

    def load_tokenizer(self) -> AbstractTokenizer | None:
        """The tokenizer; `None` if the run is not on text."""
        return load_tokenizer(self.tokenizer) if self.tokenizer.exists() else None

    def sole_use(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other processes from training in the folder."""
        return sole_use(self.lock, f"{self.path}: another process is training this run.")


def _check_content(path: Path) -> None:
    """Raises `InputError` for a link and for a large file."""
    if path.is_symlink() or (path.is_file() and path.stat().st_size > _MOST_SHOWN):
        raise InputError(f"{path} is a link, or above {_MOST_SHOWN:,} bytes; remove it.")


def is_logged(value: Any) -> bool:
    """Whether a log can hold this value: a number, or `None` for one that is not finite."""
    is_integer = type(value) is int and abs(value) < 2**63
    return value is None or type(value) is float or is_integer


def _as_tuples(x: Any) -> Any:
    """The value with tuples instead of lists, as before JSON stored it."""
    if isinstance(x, dict):
        return {name: _as_tuples(value) for name, value in x.items()}
    return tuple(map(_as_tuples, x)) if isinstance(x, list) else x


def _is_json(sizes: Mapping[str, Any]) -> bool:
    """Whether JSON can store the sizes; a user's task may have others."""
    try:
        return _as_tuples(json.loads(json.dumps(sizes))) == sizes
    except (TypeError, ValueError):
        return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except InputError:
        state = "damaged" if path.exists() else "missing"
        raise InputError(f"{path} is {state}; restore it, or start a new run.") from None


def new_folder(
    config: Config,
    runs: Path,
    save: Callable[[Path], None],
    data: str | None = None,
    origin: dict[str, Any] | None = None,
    task: AbstractTask | None = None,
) -> RunFolder:
    """Makes the folder `runs/<name>`, or else `<name>-2`, `<name>-3`, …, whole or not at all.

    **Arguments:**

    - `save`: writes the tokenizer to a path, if there is one.
    - `data`: the fingerprint of the data.
    - `origin`: the `Setup.origin` of the weights.
    - `task`: has sizes and labels.
    """
    temporary = RunFolder(runs / f".{config.name}-{os.getpid()}-{time.time_ns()}")
    temporary.checkpoints.mkdir(parents=True)
    try:
        write_text(temporary.config, dump_config(config))
        with naming(temporary.tokenizer):
            save(temporary.tokenizer)
        fingerprints = {"run": uuid.uuid4().hex, _SOURCES: [source(config)]}
        fingerprints |= {_CONFIG: checksum(temporary.config), _DATA: data, _START: origin}
        write_json(
            temporary.fingerprints, {k: x for k, x in fingerprints.items() if x is not None}
        )
        if task is not None and _is_json(task.sizes):
            write_json(temporary.sizes, task.sizes)
        if task is not None and task.labels is not None:
            write_json(temporary.labels, {label: i for i, label in enumerate(task.labels)})
        while True:
            index = max(_folders(config.name, runs), default=0) + 1
            name = f"{config.name}-{index}" if index > 1 else config.name
            folder = RunFolder(runs / name, trust=config)
            try:
                temporary.path.rename(folder.path)
                return folder
            except OSError:
                # Another process may have just made it.
                if not folder.path.exists():
                    raise
    finally:
        shutil.rmtree(temporary.path, ignore_errors=True)


@contextlib.contextmanager
def sole_use(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock `path`. Raises `InputError(refusal)` if another process holds it."""
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(refusal) from None
    with lock:
        yield


def check_origin(folder: RunFolder, task: AbstractTask, data: str, start: dict | None) -> None:
    """Raises `InputError` if a run would resume with other data, an edited configuration, or
    other weights at its `start`. Pass `None` for a run that has a checkpoint."""
    changed = changed_data(folder, task, data)
    if start is not None and folder.start not in (None, start):
        changed.append(_START)
    current = checksum(folder.config)
    # One checksum, or a list of them.
    if current not in folder.recorded.get(_CONFIG, current):
        changed.append(_CONFIG)
    if not folder.checkpoints.is_dir():
        changed.append("its folder checkpoints")
    if changed:
        raise InputError(
            f"--resume: {folder.path}: {' and '.join(changed)} changed since. Restore what it "
            "began with, or start a new run."
        )


def changed_data(folder: RunFolder, task: AbstractTask, data: str) -> list[str]:
    """Names the tokenizer and the data of a run if a task has others."""
    changed = [] if same_tokenizer(folder, task) else ["its tokenizer"]
    return changed if folder.data in (None, data) else [*changed, _DATA]


def same_tokenizer(folder: RunFolder, task: AbstractTask) -> bool:
    """Whether a task has the tokenizer of a run, as far as the run recorded it."""
    content = _saved_bytes(task.save)
    if content is None:
        return True
    tokenizer = folder.load_tokenizer()
    if tokenizer is None:
        return folder.data is None
    # Compares with the file that this release would write.
    return content == _saved_bytes(tokenizer.save)


def _saved_bytes(save: Callable[[Path], None]) -> bytes | None:
    with tempfile.TemporaryDirectory() as temporary:
        save(file := Path(temporary) / "tokenizer.json")
        return file.read_bytes() if file.exists() else None


def folder_to_resume(name: str, runs: Path, trust: Trust = False) -> RunFolder:
    """The folder of the unfinished run of this name, else of the newest finished one."""
    folders = [
        folder
        for index, folder in _folders(name, runs, trust).items()
        # `name-8` may be a run of the name `name-8`.
        if index == 1 or folder.load_config().name == Path(name).name
    ]
    if not folders:
        raise InputError(f"--resume: there is no run {name} in {runs}; start it first.")
    unfinished = [folder for folder in folders if not folder.summary.exists()]
    if len(unfinished) > 1:
        steps = ", ".join(f"{x.path} (step {x.newest_step or 0})" for x in unfinished)
        raise InputError(f"--resume: {steps} are not finished; pass the folder of one.")
    return [*folders, *unfinished][-1]


def _folders(name: str, runs: Path, trust: Trust = False) -> dict[int, RunFolder]:
    """The folders `name`, `name-2`, `name-3`, … in `runs`, by their numbers."""
    names = [path.name for path in runs.iterdir()] if runs.is_dir() else []
    matches = (re.fullmatch(rf"{re.escape(name)}(?:-([2-9]|[1-9]\d+))?", x) for x in names)
    folders = {
        int(match[1] or 1): RunFolder(runs / match[0], trust=trust)
        for match in matches
        if match
    }
    return dict(sorted(folders.items()))


def changed_values(old: Config, new: Config) -> list[str]:
    """The keys in which two configurations differ, with both values, without `parallel`."""
    before = flat_values(old)
    after = flat_values(new)
    return [
        f"{key}: {before.get(key)!r} there, {after.get(key)!r} here"
        for key in before | after
        if before.get(key) != after.get(key) and not key.startswith("parallel.")
    ]


def flat_values(config: Config) -> dict[str, Any]:
    """The values of a configuration by their dotted keys."""
    tree = config.as_tree()
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda x: type(x) is not dict)
    return {path_of(path): x for path, x in leaves}
