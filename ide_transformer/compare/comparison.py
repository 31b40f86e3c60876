"""What every comparison of schemes has: a YAML file, rows, a report and figures."""

import abc
import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from ..errors import InputError
from ..reporting import Report, Terminal, write_report
from ..training import Section, section
from ..training.configuration.config import FolderName
from ..training.folder.run_folder import sole_use


Rows = list[dict[str, Any]]


@contextlib.contextmanager
def naming_scheme(name: str) -> Iterator[None]:
    """Names a scheme in the errors of its configuration and its code."""
    try:
        yield
    except InputError as error:
        raise InputError(f"schemes.{name}: {error}") from None
    except Exception as error:
        error.add_note(f"(schemes.{name})")
        raise


@section
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
