"""Runs the examples of a page, one after the other, as one script.

Blocks fenced as `python` are run, those as `bash` by the shell; one with `title="NAME"` is
written into the file NAME. A fragment or a command that is not to run is fenced as `py` or
`sh`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


_BLOCK = re.compile(r'^```(\w+)(?: title="(.+)")?\n(.*?)^```$', flags=re.M | re.S)


def script_of(page: str) -> str:
    """The examples of a page as a script whose lines are those of the page; empty where there
    are none."""
    lines = [""] * page.count("\n")
    for block in _BLOCK.finditer(page):
        language, name, text = block.groups()
        begin = page.count("\n", 0, block.start(3))
        if name:
            lines[begin - 1] = f"__import__('pathlib').Path({name!r}).write_text({text!r})"
        elif language == "bash":
            command = ["bash", "-euc", text]
            lines[begin - 1] = f"__import__('subprocess').run({command!r}, check=True)"
        elif language == "python":
            lines[begin : begin + text.count("\n")] = text.splitlines()
    return "\n".join(lines) if any(lines) else ""


def run_examples(page: Path, make_folder: Callable[[], Path]) -> bool:
    """Runs the examples of a page, if there are any, in a process of their own and a folder
    that is made for them; whether there are any.

    **Raises:** `CalledProcessError` where one fails; its traceback names the line of the page.
    """
    text = script_of(page.read_text(encoding="utf-8"))
    if not text:
        return False
    script = make_folder() / f"{page.stem}.md.py"
    script.write_text(text, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [sys.executable, script.name],
        cwd=script.parent,
        env={**os.environ, "PATH": path, "MPLBACKEND": "agg"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return True
