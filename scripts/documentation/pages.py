"""The pages of the site: those of docs/, with tables and the pages of executed tutorials."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ide_transformer import InputError

from . import configuration, execute, families, schemes
from .examples import run_examples
from .names import check_names


ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "docs"
_PAGES = ROOT / "build" / "docs"
_WORK = ROOT / "build" / "examples"

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
    shutil.rmtree(_WORK, ignore_errors=True)
    shutil.rmtree(_PAGES, ignore_errors=True)
    shutil.copytree(SOURCES, _PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in _PAGES.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        filled = _PLACE.sub(lambda place: _TABLES[place[1]](), text)
        page.write_text(filled, encoding="utf-8")
    pages = sorted(_PAGES.rglob("*.md"))
    tutorials = sorted((SOURCES / "tutorials").glob("*.py"))
    if draft:
        for tutorial in tutorials:
            page = execute.page_of(tutorial, _PAGES / "tutorials", run=False)
            (_PAGES / "tutorials" / f"{tutorial.stem}.md").write_text(page, encoding="utf-8")
        return
    # Each is a process that compiles most of the time, on one core.
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(_run, [*tutorials, *pages]))


def _run(source: Path) -> None:
    """Runs a tutorial or the examples of a page, and says how long that has taken.

    **Raises:** `InputError` where one fails.
    """
    begin = time.perf_counter()
    name = "-".join(source.with_suffix("").parts[-2:])
    try:
        if source.suffix == ".py":
            _execute(source, _working_folder(name))
        elif not run_examples(source, lambda: _working_folder(name)):
            return
    except subprocess.CalledProcessError:
        raise InputError(f"{source}: an example failed; its error is above.") from None
    print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


def _working_folder(name: str) -> Path:
    """An empty folder for what examples write, in which they find the files of the clone."""
    folder = _WORK / name
    folder.mkdir(parents=True)
    for linked in ("configs", "scripts", "docs"):
        (folder / linked).symlink_to(ROOT / linked)
    return folder


def _execute(tutorial: Path, working: Path) -> None:
    """Runs a tutorial in a process of its own."""
    command = [sys.executable, execute.__file__, str(tutorial), str(_PAGES / "tutorials")]
    # Plain text, whatever the terminal in which the site is built.
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "96"}
    subprocess.run(command, cwd=working, env=environment, check=True)
