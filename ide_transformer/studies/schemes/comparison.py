"""The frame of a comparison: a YAML file, rows, a report and figures."""

import abc
import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from ...reporting import Report, Terminal, write_report
from ...training import Section
from ...training.choice import FolderName
from ...training.folder import sole_use


Rows = list[dict[str, Any]]


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
        with _alone(folder):
            about, rows = self.measure(folder, Terminal())
            report = Report(self.name, about, rows)
            write_report(folder, report)
            self.draw(folder, rows)
        return report

    @abc.abstractmethod
    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        """A description of the comparison, and the rows of the report."""

    def shown(self, rows: Rows) -> Rows:
        """The rows as a terminal shows them; all of each by default."""
        return rows

    @abc.abstractmethod
    def draw(self, folder: Path, rows: Rows) -> None:
        """Writes the figures."""


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from the folder, which is made, and removed with its parents where
    nothing was written."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "lock"
    busy = f"{folder}: another process makes this comparison. Wait for it, or stop it."
    with sole_use(lock, busy):
        try:
            yield
        finally:
            if made and [*folder.iterdir()] == [lock]:
                lock.unlink()
                with contextlib.suppress(OSError):  # others may have written there meanwhile
                    for path in made:
                        path.rmdir()


def fingerprint(*parts: str) -> str:
    """All that a measurement depends on but the code, as a key of what was measured."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def about_sources(found: Mapping[str, Sequence[str]]) -> str:
    """Says which code made what, from the code to names."""
    if len(found) < 2:
        return f"Code: {', '.join(found)}."
    each = (f"{source}: {', '.join(names)}" for source, names in found.items())
    return f"What is compared was made by different code: {'; '.join(each)}."
