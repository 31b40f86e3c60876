"""Compares time-stepping schemes: solves one set of weights, or trains, with each of them.

A YAML file describes the comparison; configs/compare/ has examples. A comparison that was
interrupted continues when it is started again.
"""

import argparse
from pathlib import Path

from .options import config_file, no_config


EXAMPLES = "  ide-transformer compare compare/leaderboard_language"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a YAML file, or the name of one in the package")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/compare"),
        help="folder of all comparisons (default: runs/compare)",
    )


def run(options: argparse.Namespace) -> None:
    file = config_file(options.config)
    if not file.is_file():
        raise no_config(file)
    import jax

    from ..compare import load_comparison
    from ..reporting import show_table

    comparison = load_comparison(file)
    if comparison.double_precision:
        jax.config.update("jax_enable_x64", True)
    rows = comparison.shown(comparison.compare(options.runs).rows)
    show_table(rows, comparison.headings)
    print(f"report and figures: {options.runs / comparison.name}")
