"""Compares time-stepping schemes: solves one set of weights, or trains, with each of them.

What is compared is written in a YAML file, as in configs/compare/. A comparison that was
interrupted goes on when it is called again.
"""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
from pathlib import Path

import jax

from ide_transformer.reporting import show_table
from ide_transformer.studies.schemes import load_comparison
from ide_transformer.training import run_script


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n"
        "  python scripts/compare.py configs/compare/leaderboard_language.yaml",
    )
    parser.add_argument("config", type=Path, help="a YAML file, as in configs/compare/")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/compare"),
        help="folder of all comparisons (default: runs/compare)",
    )
    arguments = parser.parse_args()
    comparison = load_comparison(arguments.config)
    if comparison.double_precision:
        jax.config.update("jax_enable_x64", True)
    show_table(comparison.shown(comparison.compare(arguments.runs).rows))
    print(f"report and figures: {arguments.runs / comparison.name}")


if __name__ == "__main__":
    run_script(main)
