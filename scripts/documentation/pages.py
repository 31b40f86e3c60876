"""The pages of the site: those of docs/, with tables and the pages of executed tutorials."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import configuration, execute, families, schemes
from .examples import run_examples
from .names import check_names


ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "docs"
BUILD = ROOT / "build"

# What `<!-- table: NAME -->` on a page stands for.
_TABLES: dict[str, Callable[[], str]] = {
    "schemes": schemes.orders_table,
    "architectures": lambda: schemes.architectures_table(ROOT),
    "other schemes": schemes.other_names,
    "configuration": configuration.keys_tables,
    "names": configuration.names_table,
    "families": lambda: families.families_table(ROOT),
}
_PLACE = re.compile(r"<!-- table: ([\w ]+) -->")


def write_pages(*, draft: bool) -> None:
    """Writes all pages into build/docs, and runs the examples on them.

    **Arguments:**

    - `draft`: run nothing.
    """
    check_names(SOURCES / "reference" / "api")
    pages = BUILD / "docs"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(SOURCES, pages, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    working = _working_folder()
    for page in sorted(pages.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        filled = _PLACE.sub(lambda place: _TABLES[place[1]](), text)
        page.write_text(filled, encoding="utf-8")
        if not draft:
            with _timed(f"examples of {page.relative_to(pages)}"):
                run_examples(page, working)
    for tutorial in sorted((SOURCES / "tutorials").glob("*.py")):
        if draft:
            page = execute.page_of(tutorial, pages / "tutorials", run=False)
            (pages / "tutorials" / f"{tutorial.stem}.md").write_text(page, encoding="utf-8")
        else:
            with _timed(f"tutorial {tutorial.stem}"):
                _execute(tutorial, pages / "tutorials", working)


@contextlib.contextmanager
def _timed(label: str) -> Iterator[None]:
    """Says how long something has taken, if it was not nothing."""
    begin = time.perf_counter()
    yield
    seconds = time.perf_counter() - begin
    if seconds >= 0.1:
        print(f"{label}: {seconds:.0f} s", flush=True)


def _working_folder() -> Path:
    """An empty folder for what tutorials write, in which they find the files of the clone."""
    folder = BUILD / "tutorials"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("configs", "scripts", "docs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def _execute(tutorial: Path, pages: Path, working: Path) -> None:
    """Runs a tutorial in a process of its own."""
    command = [sys.executable, execute.__file__, str(tutorial), str(pages)]
    # Plain text, whatever the terminal in which the site is built.
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "96"}
    subprocess.run(command, cwd=working, env=environment, check=True)
