"""The pages of the site: those of docs/, with tables and the pages of executed tutorials."""

import functools
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
from .names import check_names


ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "docs"
_PAGES = ROOT / "build" / "docs"
_WORK = ROOT / "build" / "tutorials"

# What `<!-- table: NAME -->` on a page stands for.
_TABLES: dict[str, Callable[[], str]] = {
    "schemes": schemes.orders_table,
    "architectures": lambda: schemes.architectures_table(ROOT),
    "other schemes": schemes.other_names,
    "configuration": configuration.keys_tables,
    "names": configuration.names_table,
    "families": lambda: families.families_table(ROOT),
}
# They take half of the time, so they begin first.
_LONGEST = ("any-depth", "train")
_PLACE = re.compile(r"<!-- table: ([\w ]+) -->")


def write_pages(*, draft: bool = False, short: bool = False) -> None:
    """Writes all pages into build/docs.

    **Arguments:**

    - `draft`: leave the tutorials unexecuted.
    - `short`: execute them with a tenth of their training, to see that they run.
    """
    check_names(SOURCES / "reference" / "api")
    shutil.rmtree(_WORK, ignore_errors=True)
    shutil.rmtree(_PAGES, ignore_errors=True)
    shutil.copytree(SOURCES, _PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in _PAGES.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        filled = _PLACE.sub(lambda place: _TABLES[place[1]](), text)
        page.write_text(filled, encoding="utf-8")
    tutorials = sorted(
        (SOURCES / "tutorials").glob("*.py"), key=lambda path: path.stem not in _LONGEST
    )
    if draft:
        for tutorial in tutorials:
            page = execute.page_of(tutorial, _PAGES / "tutorials", run=False)
            (_PAGES / "tutorials" / f"{tutorial.stem}.md").write_text(page, encoding="utf-8")
    else:
        # Each is a process of its own, which is waited for.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(functools.partial(_execute, short=short), tutorials))


def _working_folder(name: str) -> Path:
    """An empty folder for what a tutorial writes, in which they find the files of the clone."""
    folder = _WORK / name
    folder.mkdir(parents=True)
    for linked in ("configs", "scripts", "docs"):
        (folder / linked).symlink_to(ROOT / linked)
    return folder


def _execute(tutorial: Path, *, short: bool) -> None:
    """Runs a tutorial in a process and a folder of its own.

    **Raises:** `InputError` where it fails.
    """
    command = [sys.executable, execute.__file__, str(tutorial), str(_PAGES / "tutorials")]
    command += ["--short"] if short else []
    # Plain text, whatever the terminal in which the site is built.
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "96"}
    begin, working = time.perf_counter(), _working_folder(tutorial.stem)
    if subprocess.run(command, cwd=working, env=environment).returncode:
        raise InputError(f"{tutorial}: it failed; the error is above.")
    print(f"{tutorial.stem}: {time.perf_counter() - begin:.0f} s", flush=True)
