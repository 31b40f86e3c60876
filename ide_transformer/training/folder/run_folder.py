"""The folder of a run: made, found again, and used by one process at a time."""

import contextlib
import functools as ft
import hashlib
import math
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import jax

from ...errors import InputError, naming, whole_file
from ...packages import checksum
from ...pretrained import no_such
from ...pretrained.files import read_json
from ...reporting import write_json
from ...tasks import AbstractTask, AbstractTokenizer, load_tokenizer
from ..configuration.config import Config
from ..configuration.files import Trust, dump_config, load_config, names_of_code, run_named
from ..steps.optimizer import path_of


def source(config: Config | None = None) -> str:
    """The version of the package and a checksum of its files, `0.1.0 (1a2b3c4d5e6f)`, and those
    of the modules that the configuration names."""
    named = {} if config is None else names_of_code(config.model_dump(mode="json"))
    modules = sorted({name.partition(":")[0] for names in named.values() for name in names})
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in modules}
    own = [f"{name} ({checksum_of([Path(file)])})" for name, file in files.items() if file]
    return ", ".join((_package(), *own))


@ft.cache
def _package() -> str:
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return f"{version('ide_transformer')} ({checksum_of(files)})"


def checksum_of(files: Sequence[Path]) -> str:
    """A short checksum of some files."""
    sums = map(checksum, files)
    return hashlib.sha256("".join(sums).encode()).hexdigest()[:12]


# Bytes of a sample, or of a figure.
_MOST_SHOWN = 2**24
_NO_FILES = Path.is_fifo, Path.is_socket, Path.is_char_device, Path.is_block_device
# In the file of fingerprints.
_DATA = "its data"
_SOURCES = "sources"
_CONFIG = "its config.yaml"
_START = "its start"
# Finite numbers of each summary.
_SUMMARY = ("steps", "parameters", "nfe", "seconds")


class RunFolder:
    """The files of a run in `runs/<name>/`, by its folder or its name in `runs`.

    **Attributes:** `path`, and in it `config` (every key written out), `metrics`,
    `checkpoints`, `plots`, `summary`, `tokenizer`, `sample`, `fingerprints` (a number that no
    other run has, checksums of the configuration and of the data with which it began, the
    weights of others with which it began, and the code that made it) and `lock` (held while it
    is trained).
    """

    def __init__(self, path: str | Path):
        self.path = path = run_named(path)
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.plots = path / "plots"
        self.summary = path / "summary.json"
        self.tokenizer = path / "tokenizer.json"
        self.sample = path / "sample.txt"
        self.fingerprints = path / "fingerprints.json"
        self.lock = path / "lock"

    def load_config(self, trust: Trust = False) -> Config:
        """The configuration that the run was started with; see `read_tree` for `trust`.

        **Raises:** `InputError` where there is no such run, and for code that is not trusted.
        """
        if not self.path.exists():
            raise no_such(self.path)
        if not self.config.is_file():
            raise InputError(f"{self.path} is not the folder of a run: it has no config.yaml.")
        for there, _, names in os.walk(self.path):
            for path in (Path(there, name) for name in names):
                # A pipe would be waited for, and a device may never end.
                if any(kind(path) for kind in _NO_FILES):
                    raise InputError(f"{path} is a pipe or a device; remove it from the run.")
        return load_config(self.config, trust=trust)

    @property
    def newest_step(self) -> int | None:
        """The step of the newest checkpoint, damaged or not."""
        found = [x.name for x in self.checkpoints.glob("*")]
        return max((int(name) for name in found if name.isdigit()), default=None)

    @property
    def recorded(self) -> dict[str, Any]:
        """The fingerprints with which it began; `InputError` where they are lost."""
        return _json(
            self.fingerprints,
            "so that it is not known whether the run would go on with the data with which it "
            "began. Restore it, or start a new run",
        )

    @property
    def identity(self) -> str | None:
        """A number that no other run has; `None` where it is not known."""
        try:
            return self.recorded.get("run")
        except InputError:
            return None

    @property
    def data(self) -> str | None:
        """The fingerprint of the data with which it began; `None` where it is not recorded."""
        return self.recorded.get(_DATA)

    @property
    def start(self) -> dict[str, Any] | None:
        """The weights of a run or checkpoint with which it began, see `Start.origin`; `None`
        where it began with its own, or they are not recorded."""
        return self.recorded.get(_START)

    @property
    def sources(self) -> list[str]:
        """The code that made it, see `source`, of each of its starts."""
        found = self.recorded.get(_SOURCES)
        if not found or not isinstance(found, list) or {*map(type, found)} != {str}:
            raise InputError(f"{self.fingerprints} is damaged; restore it, or start a new run.")
        return found

    def add_source(self, source: str) -> None:
        """Records that the run goes on by other code."""
        if (sources := self.sources)[-1] != source:
            write_json(self.fingerprints, {**self.recorded, _SOURCES: [*sources, source]})

    def go_on_by(self, config: Config) -> None:
        """Records the configuration by which the run goes on, if another than before."""
        own = self.load_config(config)
        config = config.model_copy(update={"parallel": own.parallel})
        if own == config:
            return
        self.summary.unlink(missing_ok=True)
        with whole_file(self.config) as written:
            written.write_text(dump_config(config), encoding="utf-8")
            either = [checksum(self.config), checksum(written)]
            write_json(self.fingerprints, {**self.recorded, _CONFIG: either})

    def load_summary(self) -> dict[str, Any]:
        """Summary that the run wrote at its end, `None` for a number that is not finite;
        `InputError` for a file that is damaged."""
        advice = "restore it, or remove it, so that the run is resumed and writes it again"
        found = _json(self.summary, advice)
        wrong = {name for name, x in found.items() if not is_logged(x)}
        needed = {name: found.get(name) for name in _SUMMARY if name not in wrong}
        wrong |= {name for name, x in needed.items() if x is None or not math.isfinite(x)}
        wrong |= {"validation_loss"} - found.keys()
        if wrong:
            raise InputError(
                f"{self.summary} is damaged: it has no number for "
                f"{', '.join(sorted(wrong))}; {advice}."
            )
        return found

    def load_sample(self) -> str | None:
        """The text that the run wrote at its end, `None` without one. What is no UTF-8 is
        marked."""
        _check_own(self.sample)
        if not self.sample.exists():
            return None
        return self.sample.read_text(encoding="utf-8", errors="replace").strip()

    def figures(self) -> list[Path]:
        """The figures that the run drew."""
        found = sorted(self.plots.glob("*.png"))
        for path in (self.plots, *found):
            _check_own(path)
        return found

    def load_tokenizer(self) -> AbstractTokenizer:
        """The tokenizer of the model of a run on text."""
        return load_tokenizer(self.tokenizer)

    @property
    def known_tokenizer(self) -> AbstractTokenizer | None:
        """The tokenizer of the model; `None` for no run on text."""
        return self.load_tokenizer() if self.tokenizer.exists() else None

    def sole_use(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other processes from training in the folder; see `sole_use`."""
        return sole_use(
            self.lock,
            f"{self.path}: another process is training this run. Wait for it, or stop it.",
        )


def _check_own(path: Path) -> None:
    """Refuses what would be shown of a run although it did not write it, and what is too large
    to be shown."""
    if path.is_symlink():
        raise InputError(
            f"{path} is a link; of a run its own files are shown alone. Remove it."
        )
    if path.is_file() and (size := path.stat().st_size) > _MOST_SHOWN:
        raise InputError(
            f"{path} has {size:,} bytes; up to {_MOST_SHOWN:,} are shown. Remove it."
        )


def is_logged(value: Any) -> bool:
    """Whether a log can have this: a number, or `None` for one that is not finite."""
    whole = type(value) is int and abs(value) < 2**63
    return value is None or type(value) is float or whole


def _json(path: Path, advice: str) -> dict[str, Any]:
    try:
        return read_json(path)
    except InputError:
        state = "damaged" if path.exists() else "missing"
        raise InputError(f"{path} is {state}; {advice}.") from None


def new_folder(
    config: Config,
    runs: Path,
    save: Callable[[Path], None],
    data: str | None = None,
    start: dict[str, Any] | None = None,
) -> RunFolder:
    """A fresh folder `runs/<name>`, or `<name>-2`, `-3`, … where that is taken. It appears with
    all that a run begins with, or not at all: `save` writes the tokenizer, if there is one,
    `data` is the fingerprint of the data, and `start` the `Start.origin`."""
    made = RunFolder(runs / f".{config.name}-{os.getpid()}-{time.time_ns()}")
    made.checkpoints.mkdir(parents=True)
    try:
        with naming(made.config):
            made.config.write_text(dump_config(config), encoding="utf-8")
        with naming(made.tokenizer):
            save(made.tokenizer)
        told = {"run": uuid.uuid4().hex, _SOURCES: [source(config)]}
        told |= {_CONFIG: checksum(made.config)} | ({} if data is None else {_DATA: data})
        told |= {} if start is None else {_START: start}
        write_json(made.fingerprints, told)
        while True:
            number = max(_folders(config.name, runs), default=0) + 1
            folder = _numbered(config.name, runs, number)
            try:
                made.path.rename(folder.path)
            except OSError:
                if folder.path.exists():
                    continue  # it was taken a moment ago
                raise
            return folder
    finally:
        shutil.rmtree(made.path, ignore_errors=True)


@contextlib.contextmanager
def sole_use(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock `path`, which the operating system releases when the process ends, however
    it does; `InputError` with the `refusal` where another process has it."""
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(refusal) from None
    with lock:
        yield


def check_origin(
    folder: RunFolder, task: AbstractTask, data: str, start: dict[str, Any] | None
) -> None:
    """Refuses to resume a run on other data, by an edited configuration, or where it has to
    begin again, with other weights; its `start` is `None` where it goes on with its own."""
    what = changed_data(folder, task, data)
    what += [_START] * (start is not None and folder.start not in (None, start))
    now = checksum(folder.config)
    # One checksum, or a list of them.
    what += [_CONFIG] * (now not in folder.recorded.get(_CONFIG, now))
    if what:
        raise InputError(
            f"--resume: {folder.path} began otherwise; {' and '.join(what)} changed since. "
            "Restore what it began with, or start a new run without --resume."
        )
    if not folder.checkpoints.is_dir():
        raise InputError(f"--resume: {folder.path} has lost its folder checkpoints.")


def changed_data(folder: RunFolder, task: AbstractTask, data: str) -> list[str]:
    """Which of tokenizer and data are not those that a run recorded when it began."""
    what = [] if same_tokenizer(folder, task) else ["its tokenizer"]
    return what + [_DATA] * (folder.data not in (None, data))


def same_tokenizer(folder: RunFolder, task: AbstractTask) -> bool:
    """Whether the tokens of a task are those of a run, as far as it recorded them."""
    own = tokenizer_of(task)
    if own is None:
        return True
    if not folder.tokenizer.exists():
        return folder.data is None
    return own == _saved(folder.load_tokenizer().save)  # as this release writes it


def tokenizer_of(task: AbstractTask) -> bytes | None:
    """The tokenizer of a task, as a run keeps it; `None` where it has none."""
    return _saved(task.save)


def _saved(save: Callable[[Path], None]) -> bytes | None:
    with tempfile.TemporaryDirectory() as there:
        save(file := Path(there) / "tokenizer.json")
        return file.read_bytes() if file.exists() else None


def folder_to_resume(name: str, runs: Path, trust: Trust = False) -> RunFolder:
    """The folder of the run of that name that is not finished; of finished ones the newest.
    `name-8` may be a run of the name `name-8`."""
    found = [
        folder
        for number, folder in _folders(name, runs).items()
        if number == 1 or folder.load_config(trust).name == Path(name).name
    ]
    if not found:
        raise InputError(
            f"--resume: there is no run {name} in {runs}; start it without --resume."
        )
    unfinished = [folder for folder in found if not folder.summary.exists()]
    if len(unfinished) > 1:
        steps = [f"{x.path} (step {x.newest_step or 0})" for x in unfinished]
        raise InputError(
            f"--resume: {len(steps)} runs of the name {name} are not finished: "
            f"{', '.join(steps)}. Give the folder of one, for example {unfinished[0].path}."
        )
    return [*found, *unfinished][-1]


def unfinished_twin(config: Config, runs: Path) -> RunFolder | None:
    """The newest folder of a run of this configuration that is not finished, if any."""
    written = dump_config(config)
    for folder in reversed(_folders(config.name, runs).values()):
        there = folder.config.read_text("utf-8") if folder.config.is_file() else ""
        if there == written and not folder.summary.exists():
            return folder
    return None


def _folders(name: str, runs: Path) -> dict[int, RunFolder]:
    """The folders `name`, `name-2`, `name-3`, … in `runs`, by their numbers."""
    names = [path.name for path in runs.iterdir()] if runs.is_dir() else []
    found = (re.fullmatch(rf"{re.escape(name)}(?:-([2-9]|[1-9]\d+))?", x) for x in names)
    numbers = sorted(int(match[1] or 1) for match in found if match)
    return {number: _numbered(name, runs, number) for number in numbers}


def _numbered(name: str, runs: Path, number: int) -> RunFolder:
    return RunFolder(runs / (name if number == 1 else f"{name}-{number}"))


def changed_values(old: Config, new: Config) -> list[str]:
    """The keys in which two configurations differ, with both values. Those of `parallel` may
    differ, since the results do not depend on them."""
    there, here = flat_values(old), flat_values(new)
    return [
        f"{key}: {there.get(key)!r} there, {here.get(key)!r} here"
        for key in there | here
        if there.get(key) != here.get(key) and not key.startswith("parallel.")
    ]


def flat_values(config: Config) -> dict[str, Any]:
    """The values of a configuration by their dotted keys."""
    tree = config.model_dump(mode="json")
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda x: type(x) is not dict)
    return {path_of(path): x for path, x in leaves}
