"""Measures the order of convergence of every scheme, in float64.

For each scheme, control and constraint: the order expected by theory and the one observed,
the error constant, for splittings the error of the commutators and that of the sub-solver,
and how far the solution is from its constraint.
"""

import argparse
import json
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ide_transformer.studies.convergence import (
    CONSTRAINTS,
    CONTROLS,
    Row,
    applies,
    measure_order,
    plot_orders,
    schemes,
)
from ide_transformer.training import run_script


def show(rows: list[Row]) -> None:
    columns = ("scheme", "control", "constraint", "expected", "observed", "constant")
    table = Table(*columns, "splitting error", "sub-step error", "residual")
    for row in rows:
        parts = (row.splitting_error, row.sub_step_error)
        table.add_row(
            row.scheme,
            row.control,
            row.constraint,
            str(row.expected_order),
            f"{row.observed_order:.2f}",
            f"{row.error_constant:.2g}",
            *("–" if part is None else f"{part:.1e}" for part in parts),
            f"{row.constraint_residual:.0e}",
        )
    console = Console()
    # Where the output is no terminal its width is unknown; a table should not be cut.
    console.width = max(console.width, 130)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python scripts/convergence.py --scheme 'strang(heun)' --scheme "
        "rk4 --constraint sphere --json orders.json --figure orders.png",
    )
    parser.add_argument("--scheme", action="append", help="default: all of them")
    parser.add_argument("--control", action="append", choices=tuple(CONTROLS))
    parser.add_argument("--constraint", action="append", choices=tuple(CONSTRAINTS))
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--figure", type=Path, help="also draw error against step size")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    # The problems are tiny: compiling them takes most of the time.
    jax.config.update("jax_disable_most_optimizations", True)
    chosen = [
        (scheme, control, constraint)
        for scheme in arguments.scheme or schemes()
        for control in arguments.control or ("chebyshev", "piecewise_constant")
        for constraint in arguments.constraint or ("free", "sphere")
        if applies(scheme, constraint)
    ]
    rows = []
    for each in track(chosen, "measuring orders"):
        rows.append(measure_order(*each))
        # A process may hold only so many compiled programs.
        jax.clear_caches()
    show(rows)
    if arguments.json:
        text = json.dumps([row._asdict() for row in rows], indent=2)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    if arguments.figure:
        plot_orders(arguments.figure, rows)


if __name__ == "__main__":
    run_script(main)
