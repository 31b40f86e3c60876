"""Writes a page on some runs: losses, norms over depth, coefficients, steps, texts, cost."""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
from pathlib import Path

from ide_transformer.reporting import Terminal
from ide_transformer.studies.runs import report_runs
from ide_transformer.training import run_script
from ide_transformer.training.script import add_trust


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n"
        "  python scripts/report.py runs/shakespeare runs/strang-8 --output report.html",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("report.html"),
        help="the page, one file that needs no other (default: report.html)",
    )
    add_trust(parser)
    arguments = parser.parse_args()
    report_runs(arguments.runs, arguments.output, Terminal().print, trust=arguments.trust)
    print(f"report: {arguments.output}")


if __name__ == "__main__":
    run_script(main)
