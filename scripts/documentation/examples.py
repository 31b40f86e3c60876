"""Runs the examples of a page: its blocks of Python, one after the other."""

import re
import subprocess
import sys
from pathlib import Path


# A fragment that does not run by itself is fenced as `py`.
_BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.M | re.S)


def run_examples(page: Path, working: Path) -> None:
    """Runs the examples in a process of their own, in the folder `working`.

    **Raises:** `CalledProcessError` where one fails; the error names the line of the page.
    """
    text = page.read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in _BLOCK.finditer(text):
        begin = text.count("\n", 0, block.start(1))
        for number, line in enumerate(block[1].splitlines(), begin):
            lines[number] = line
    if any(lines):
        print(f"examples of {page.name}", flush=True)
        script = working / f"{page.stem}.md.py"
        script.write_text("\n".join(lines), encoding="utf-8")
        subprocess.run(
            [sys.executable, script.name], cwd=working, stdout=subprocess.DEVNULL, check=True
        )
