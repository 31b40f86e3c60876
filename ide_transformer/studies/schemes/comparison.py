"""The frame of a comparison: a YAML file, rows, a report and figures."""

import abc
import contextlib
import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rich.console import Console

from ...errors import InputError
from ...reporting import Report, Terminal, write_report
from ...training import Section
from ...training.configuration.section import FolderName
from ...training.folder.run_folder import sole_use


Rows = list[dict[str, Any]]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Faults:
    """Collects what is wrong, so that all of it is said at once: messages, each with the places
    that it is about, if it does not name them."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, message: str, *places: str) -> None:
        self.found.setdefault(message, []).extend(places)

    def each(
        self, make: Callable[[K], T], keys: Iterable[K], place: Callable[[K], str] | None = None
    ) -> dict[K, T]:
        """The result of `make` for each key, without those that raise an `InputError`; `place`
        names the key in the error."""
        made = {}
        for key in keys:
            where = [] if place is None else [place(key)]
            try:
                made[key] = make(key)
            except InputError as error:
                self.add(str(error), *where)
            except Exception as error:
                for name in where:
                    error.add_note(f"({name})")
                raise
        return made

    def refuse(self) -> None:
        """**Raises:** `InputError` that says each fault once, if there are any."""
        if self.found:
            lines = []
            for message, places in self.found.items():
                more = f" and {len(places) - 3} more" * (len(places) > 3)
                about = f"{', '.join(places[:3])}{more}: " if places else ""
                lines.append(about + message)
            raise InputError("\n".join(lines))


class AbstractComparison(Section, abc.ABC):
    """The configuration of a comparison of schemes.

    - `name`: of the folder of its results; that of the file by default.
    """

    # Whether the errors of a solve count, which should not be those of rounding.
    double_precision: ClassVar[bool] = False

    mode: str
    name: FolderName

    def compare(self, runs: Path) -> Report:
        """Measures each scheme that was not measured before and writes the report into
        `runs/<name>/`. Input that cannot be used is refused before anything is measured."""
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
                # A folder that was made, and where nothing was written, is removed.
                if made and [*folder.iterdir()] == [lock]:
                    lock.unlink()
                    with contextlib.suppress(OSError):  # others may have written there
                        for path in made:
                            path.rmdir()
        return report

    @classmethod
    def check_parts(cls, tree: dict[str, Any]) -> None:
        """**Raises:** `InputError` for what is wrong in those parts of a comparison that can be
        read where others cannot; nothing by default."""

    @abc.abstractmethod
    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        """A description of the comparison, and the rows of the report."""

    @property
    @abc.abstractmethod
    def headings(self) -> dict[str, str]:
        """Headings of columns whose names alone are unclear."""

    def shown(self, rows: Rows) -> Rows:
        """The rows as a terminal shows them; all of each by default."""
        return rows

    @abc.abstractmethod
    def draw(self, folder: Path, rows: Rows) -> None:
        """Writes the figures."""


def fingerprint(*parts: str) -> str:
    """All that a measurement depends on but the code, as a key of what was measured."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def about_sources(found: Mapping[str, Sequence[str]]) -> str:
    """Says which code made what, from the code to names. Runs that name modules of their own
    were made by other code where one module has several checksums."""
    modules = sorted({module for code in found for module in re.split(r", | then ", code)})
    # The version of the package stands without its name, as what was not recorded.
    names = {"" if x[:1].isdigit() else x.rpartition(" (")[0] for x in modules}
    if len(names) == len(modules):
        return f"Code: {', '.join(modules)}."
    *few, (most, others) = sorted(found.items(), key=lambda x: len(x[1]))
    each = [*(f"{source}: {', '.join(names)}" for source, names in few), f"{most}: "]
    each[-1] += f"the other {len(others)}" if len(others) > 3 else ", ".join(others)
    return f"What is compared was made by different code: {'; '.join(each)}."
