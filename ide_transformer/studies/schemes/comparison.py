"""The frame of a comparison: a YAML file, rows, a report and figures."""

import abc
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from ...reporting import Report, Terminal, write_report
from ...training import Section
from ...training.types import FolderName


Rows = list[dict[str, Any]]


class AbstractComparison(Section, abc.ABC):
    """The configuration of a comparison of schemes.

    - `name`: of the folder of its results; that of the file by default.
    """

    # Whether the errors of a solve count, which should not be those of rounding.
    double_precision: ClassVar[bool] = False

    mode: str
    name: FolderName

    def placed(self, folder: Path) -> "AbstractComparison":
        """The configuration with its paths relative to the folder of its file."""
        return self

    def compare(self, runs: Path) -> Report:
        """Measures each scheme and writes the report into `runs/<name>/`. What was measured
        before is not measured again.

        **Raises:** `InputError` for input that cannot be used, before anything is measured.
        """
        folder = runs / self.name
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
