"""What every comparison of schemes has: a YAML file, rows, a report and figures."""

import abc
import contextlib
import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rich.console import Console

from ..errors import InputError
from ..reporting import Report, Terminal, write_report
from ..training import Section
from ..training.configuration.section import FolderName
from ..training.folder.run_folder import sole_use


Rows = list[dict[str, Any]]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Faults:
    """Collects errors of the input, so that the user sees all of them at once."""

    def __init__(self) -> None:
        self.places: dict[str, list[str]] = {}  # by message

    def each(
        self, make: Callable[[K], T], keys: Iterable[K], place: Callable[[K], str] = str
    ) -> dict[K, T]:
        """`make(key)` for each key. Keys for which it raises an `InputError` are left out; the
        error is kept with `place(key)`."""
        made = {}
        for key in keys:
            try:
                made[key] = make(key)
            except InputError as error:
                self.places.setdefault(str(error), []).append(place(key))
            except Exception as error:
                error.add_note(f"({place(key)})")
                raise
        return made

    def refuse(self) -> None:
        """**Raises:** `InputError` with each message and its places, if there are any."""
        lines = []
        for message, places in self.places.items():
            more = f" and {len(places) - 3} more" * (len(places) > 3)
            lines.append(f"{', '.join(places[:3])}{more}: {message}")
        if lines:
            raise InputError("\n".join(lines))


class AbstractComparison(Section, abc.ABC):
    """The configuration of a comparison of schemes.

    - `name`: of the folder of its results. Default: the name of the file.
    """

    # Errors of a solve need double precision.
    double_precision: ClassVar[bool] = False

    mode: str
    name: FolderName

    def compare(self, runs: Path) -> Report:
        """Measures each scheme that has no measurement yet, and writes the report and the
        figures into `runs/<name>/`.

        **Raises:** `InputError` for input that cannot be used, before anything is measured.
        """
        folder = runs / self.name
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / "lock"
        busy = f"{folder}: another process makes this comparison. Wait for it, or stop it."
        with sole_use(lock, busy):
            try:
                about, rows = self.measure(folder, Terminal())
                report = Report(self.name, about, rows, self.headings)
                write_report(folder, report)
                self.draw(folder, rows)
            finally:
                # Input that was refused leaves no folder behind.
                if made and [*folder.iterdir()] == [lock]:
                    lock.unlink()
                    with contextlib.suppress(OSError):  # others may have written there
                        for path in made:
                            path.rmdir()
        return report

    @abc.abstractmethod
    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        """A description of the comparison, and the rows of the report."""

    @property
    @abc.abstractmethod
    def headings(self) -> dict[str, str]:
        """Headings of columns whose names alone are unclear."""

    def shown(self, rows: Rows) -> Rows:
        """The rows for a terminal."""
        return rows

    @abc.abstractmethod
    def draw(self, folder: Path, rows: Rows) -> None:
        """Writes the figures."""


def fingerprint(*parts: str) -> str:
    """A checksum of everything a measurement depends on, except the code."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def about_sources(made: Mapping[str, Sequence[str]]) -> str:
    """A sentence on the code that made the runs; `made` has their names by code. The code
    differs if one module has several checksums."""
    modules = sorted({module for code in made for module in re.split(r", | then ", code)})
    # The version of this package stands without a name.
    names = {"" if x[:1].isdigit() else x.rpartition(" (")[0] for x in modules}
    if len(names) == len(modules):
        return f"Code: {', '.join(modules)}."
    *few, (most, others) = sorted(made.items(), key=lambda x: len(x[1]))
    each = [f"{code}: {', '.join(runs)}" for code, runs in few]
    rest = f"the other {len(others)}" if len(others) > 3 else ", ".join(others)
    each.append(f"{most}: {rest}")
    return f"What is compared was made by different code: {'; '.join(each)}."
