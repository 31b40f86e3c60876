"""The pages of the site: those of docs/, with formulas typeset, and executed tutorials. Their
generated tables stand in docs/, so that the pages are complete without a site."""

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

from . import execute, tables as generated
from .mathematics import typeset
from .names import check_names, with_directives, with_summaries
from .quick_programs import quick_programs


ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "docs"
_PAGES = ROOT / "build" / "docs"
_WORK = ROOT / "build" / "tutorials"

# What stands on a page between `<!-- table: NAME -->` and `<!-- end -->`.
TABLES: dict[str, Callable[[], str]] = {
    "schemes": generated.orders_table,
    "architectures": lambda: generated.architectures_table(ROOT),
    "other schemes": generated.other_names,
    "configuration": generated.keys_tables,
    "names": generated.names_table,
    "families": lambda: generated.families_table(ROOT),
}
# They take half of the time, so they begin first.
_LONGEST = ("any-depth", "train")
_PLACE = re.compile(r"<!-- table: ([\w ]+) -->\n(.*?)<!-- end -->", flags=re.S)
# On a forge there are the scripts of the tutorials only.
_TUTORIAL = re.compile(r"(\]\((?:[\w/.-]*tutorials/)?[\w-]+)\.py(#[\w-]+)?\)")


def tables() -> dict[str, str]:
    """The generated tables as they stand on the pages, by name."""
    pages = (path.read_text(encoding="utf-8") for path in sorted(SOURCES.rglob("*.md")))
    return {name: text.strip() for page in pages for name, text in _PLACE.findall(page)}


def write_tables() -> None:
    """Generates the tables and the lists of names again, in the pages of docs/."""
    for path in sorted(SOURCES.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        filled = with_summaries(_PLACE.sub(_filled, text))
        if filled != text:
            path.write_text(filled, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


def _filled(place: re.Match[str]) -> str:
    name = place[1]
    if name not in TABLES:
        raise InputError(f"table {name!r}: unknown; known: {', '.join(TABLES)}")
    return f"<!-- table: {name} -->\n\n{TABLES[name]()}\n\n<!-- end -->"


def write_pages(*, draft: bool = False, short: bool = False) -> None:
    """Writes all pages into build/docs; a `draft` has unexecuted tutorials, a `short` one those
    with a tenth of their training, their programs optimised little."""
    check_names(SOURCES / "reference" / "api")
    shutil.rmtree(_WORK, ignore_errors=True)
    shutil.rmtree(_PAGES, ignore_errors=True)
    shutil.copytree(SOURCES, _PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    folder, scripts = _PAGES / "tutorials", (SOURCES / "tutorials").glob("*.py")
    tutorials = sorted(scripts, key=lambda path: path.stem not in _LONGEST)
    if draft:
        for tutorial in tutorials:
            execute.write_page(tutorial, folder, run=False)
    else:
        # Each is a process of its own, which is waited for.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(functools.partial(_execute, short=short), tutorials))
    for path in _PAGES.rglob("*.md"):
        text = _TUTORIAL.sub(r"\1.md\2)", path.read_text(encoding="utf-8"))
        path.write_text(typeset(with_directives(text)), encoding="utf-8")


def _execute(tutorial: Path, *, short: bool) -> None:
    """Runs a tutorial in a process and a folder of its own, with the files of the clone."""
    working = _WORK / tutorial.stem
    working.mkdir(parents=True)
    for linked in ("configs", "scripts", "docs"):
        (working / linked).symlink_to(ROOT / linked)
    command = [sys.executable, execute.__file__, str(tutorial), str(_PAGES / "tutorials")]
    command += ["--short"] if short else []
    # Plain text, whatever the terminal in which the site is built.
    settings = quick_programs(os.environ) if short else os.environ
    environment = {**settings, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "96"}
    begin = time.perf_counter()
    if subprocess.run(command, cwd=working, env=environment).returncode:
        raise InputError(f"{tutorial}: it failed; the error is above.")
    print(f"{tutorial.stem}: {time.perf_counter() - begin:.0f} s", flush=True)
