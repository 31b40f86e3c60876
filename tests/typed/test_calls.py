"""A type checker sees the arguments of the functions that build models."""

import json
import sys
from pathlib import Path

from tests.helpers import ROOT
from tests.running import run_apart


CALLS = Path(__file__).with_name("calls.py")


def test_pyright_reports_the_wrong_calls_and_no_other():
    lines = CALLS.read_text(encoding="utf-8").splitlines()
    wrong = {i for i, line in enumerate(lines) if line.endswith("# wrong")}
    options = ("--outputjson", "--pythonpath", sys.executable)
    pyright = (sys.executable, "-m", "pyright", *options, CALLS)
    report = json.loads(run_apart(pyright, expected=1, cwd=ROOT).stdout)
    reported = {x["range"]["start"]["line"] for x in report["generalDiagnostics"]}
    assert len(wrong) > 9 and reported == wrong
