"""The base class of comparisons of schemes: a YAML file, rows, a report and figures."""

import abc
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from ..reporting import Report, Terminal, write_report
from ..training import Section, section
from ..training.configuration.section import FolderName
from ..training.folder.run_folder import sole_use


Rows = list[dict[str, Any]]


@section
class AbstractComparison(Section, abc.ABC):
    """The configuration of a comparison of schemes.

    - `name`: the folder of the results. Default: the name of the file.
    """

    # Whether it measures errors of solves, which needs double precision.
    double_precision: ClassVar[bool] = False

    mode: str
    name: FolderName = "comparison"

    def compare(self, runs: Path) -> Report:
        """Measures each scheme that has no measurement yet, and writes a report and figures
        into `runs/<name>/`.

        **Raises:** `InputError` for unusable input, before anything is measured.
        """
        self.prepare()
        folder = runs / self.name
        folder.mkdir(parents=True, exist_ok=True)
        busy = f"{folder}: another process makes this comparison. Wait for it, or stop it."
        with sole_use(folder / "lock", busy):
            about, rows = self.measure(folder, Terminal())
            report = Report(self.name, about, rows, self.headings)
            write_report(folder, report)
            self.draw(folder, rows)
        return report

    def prepare(self) -> None:
        """Reads configurations and data, before anything is written."""

    @abc.abstractmethod
    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        """A description of the comparison, and the rows of the report."""

    @property
    @abc.abstractmethod
    def headings(self) -> dict[str, str]:
        """Headings for columns with an unclear name."""

    def table_rows(self, rows: Rows) -> Rows:
        """The rows with the columns that fit on a terminal; by default all."""
        return rows

    @abc.abstractmethod
    def draw(self, folder: Path, rows: Rows) -> None:
        """Writes the figures."""


def fingerprint(*parts: str) -> str:
    """A short checksum of texts, such as the inputs of a measurement."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def about_sources(runs_by_code: Mapping[str, Sequence[str]]) -> str:
    """A sentence on the code that made the runs, from the names of the runs by code. Codes
    differ if a module has several checksums."""
    modules = sorted(
        {module for code in runs_by_code for module in re.split(r", | then ", code)}
    )
    # The version of this package has no name.
    names = {"" if x[:1].isdigit() else x.rpartition(" (")[0] for x in modules}
    if len(names) == len(modules):
        return f"Code: {', '.join(modules)}."
    *rare, (code, runs) = sorted(runs_by_code.items(), key=lambda x: len(x[1]))
    parts = [f"{rare_code}: {', '.join(rare_runs)}" for rare_code, rare_runs in rare]
    parts.append(f"{code}: " + (f"the other {len(runs)}" if len(runs) > 3 else ", ".join(runs)))
    return f"The runs were made by different code: {'; '.join(parts)}."
