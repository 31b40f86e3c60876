"""Compares time-stepping schemes: solves one set of weights, or trains, with each of them.

A YAML file describes the comparison, as in configs/compare/. Started again, it continues.
"""

import argparse
from pathlib import Path

from .options import config_file


EXAMPLES = """\
  ide-transformer compare compare/leaderboard_language
  ide-transformer compare compare/growth compare/growth_muon
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    about = "YAML files, or names of those in the package; one is made after the other"
    parser.add_argument("configs", nargs="+", metavar="config", help=about)
    about = "folder of all comparisons (default: runs/compare)"
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"), help=about)


def run(options: argparse.Namespace) -> None:
    files = [config_file(config) for config in options.configs]
    import jax
    import jax.numpy as jnp

    from ..compare import load_comparison
    from ..reporting import show_table

    comparisons = [load_comparison(file) for file in files]
    double = jnp.finfo(jnp.result_type(float)).bits == 64
    for comparison in comparisons:
        jax.config.update("jax_enable_x64", double or comparison.double_precision)
        rows = comparison.table_rows(comparison.compare(options.runs).rows)
        show_table(rows, comparison.headings)
        print(f"report and figures: {options.runs / comparison.name}")
