"""Writes an HTML page about runs: their logs, figures and texts, and where they differ."""

import argparse
from pathlib import Path

from .options import add_trust, results_file


EXAMPLES = "  ide-transformer report runs/shakespeare runs/strang-8 --output report.html"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run")
    about = "the page, a single file (default: report.html)"
    parser.add_argument("--output", type=results_file, default=Path("report.html"), help=about)
    add_trust(parser)


def run(options: argparse.Namespace) -> None:
    from ..compare.pages import report_runs
    from ..training import RunFolder

    folders = [RunFolder(run, trust=options.trust) for run in options.runs]
    report_runs(folders, options.output)
    print(f"report: {options.output}")
