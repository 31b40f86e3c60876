"""A type checker sees the arguments of the functions that build models."""

import re
import sys
from pathlib import Path

from tests.helpers import ROOT
from tests.running import run_apart


CALLS = Path(__file__).with_name("calls.py")


def test_pyright_reports_the_wrong_calls_and_no_other():
    lines = enumerate(CALLS.read_text(encoding="utf-8").splitlines(), start=1)
    wrong = {i for i, line in lines if line.endswith("# wrong")}
    pyright = (sys.executable, "-m", "pyright", "--pythonpath", sys.executable, CALLS)
    # On its first run pyright also prints how it is installed.
    report = run_apart(pyright, expected=1, cwd=ROOT).stdout
    assert {int(line) for line in re.findall(r"calls\.py:(\d+):", report)} == wrong
