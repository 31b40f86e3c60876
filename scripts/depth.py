"""Solves a trained model with fewer and with more field evaluations.

Steps are left out, lengthened, merged and refined as the equation says, and compared with
dropping layers by the rules in use. Writes tables (Markdown, CSV, JSON) and figures.
"""

import argparse
from pathlib import Path

from ide_transformer.comparison import compare_depth, show_report
from ide_transformer.training import main_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python scripts/depth.py runs/shakespeare",
    )
    parser.add_argument("path", type=Path, help="the folder of a run, as runs/shakespeare")
    parser.add_argument(
        "--out", type=Path, help="folder of the results (default: depth/ in the run's)"
    )
    parser.add_argument("--calibration", type=int, default=32, help="samples to choose by")
    parser.add_argument("--held-out", type=int, default=64, help="samples to measure on")
    arguments = parser.parse_args()
    folder = arguments.out or arguments.path / "depth"
    reports = compare_depth(
        arguments.path,
        folder,
        calibration=arguments.calibration,
        held_out=arguments.held_out,
    )
    for report in reports:
        show_report(report)
        print(report.about)
    print(f"tables and figures: {folder}")


if __name__ == "__main__":
    main_of(main)
