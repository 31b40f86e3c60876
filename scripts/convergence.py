"""Measures the order of convergence of every scheme, in float64.

For each scheme, control and constraint: the order expected by theory and the one observed,
the error constant, for splittings the error of the commutators and that of the sub-solver,
and how far the solution is from its constraint.
"""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import textwrap
from pathlib import Path

import jax
from rich.progress import track

from ide_transformer import InputError
from ide_transformer.reporting import Terminal, show_table, write_json
from ide_transformer.studies.convergence import (
    CONSTRAINTS,
    CONTROLS,
    applies,
    measure_order,
    plot_orders,
    schemes,
)
from ide_transformer.training import run_script
from ide_transformer.training.script import figure_file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python scripts/convergence.py --scheme 'strang(heun)' --scheme "
        "rk4 --constraint sphere --json orders.json --figure orders.png\n\n"
        + textwrap.fill(f"schemes: {'; '.join(schemes())}", 90, break_on_hyphens=False),
    )
    parser.add_argument(
        "--scheme", action="append", help="one of those below (default: all of them)"
    )
    parser.add_argument("--control", action="append", choices=tuple(CONTROLS))
    parser.add_argument("--constraint", action="append", choices=tuple(CONSTRAINTS))
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--figure", type=figure_file, help="also draw error against step size")
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
    if not chosen:
        raise InputError("None of these schemes can be measured on these constraints.")
    rows = []
    for each in track(chosen, "measuring orders", console=Terminal()):
        rows.append(measure_order(*each))
        # The number of compiled programs that a process may hold is limited.
        jax.clear_caches()
    table = [row._asdict() for row in rows]
    show_table([{k: row[k] for k in row if k not in ("steps", "errors")} for row in table])
    if arguments.json:
        write_json(arguments.json, table)
    if arguments.figure:
        plot_orders(arguments.figure, rows)


if __name__ == "__main__":
    run_script(main)
