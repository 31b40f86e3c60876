"""Measures the order of convergence of every scheme, in float64.

For each scheme, control and constraint the table has the order by theory, the observed order
and the error constant; for splittings also the errors of the commutators and of the
sub-solver; and the distance of the solution from its constraint.
"""

import argparse
import textwrap

from ..errors import InputError
from .options import figure_file, results_file


EXAMPLES = """\
  ide-transformer convergence --scheme 'strang(heun)' --constraint sphere --json orders.json
  ide-transformer convergence --scheme mine:Backwards
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    from ..compare.convergence import CONSTRAINTS, CONTROLS, schemes

    listed = textwrap.fill(f"schemes: {'; '.join(schemes())}", 90, break_on_hyphens=False)
    parser.epilog = f"{parser.epilog}\n{listed}"
    add = parser.add_argument
    about = "one of those below (default: all), or your own, package.module:Class"
    add("--scheme", action="append", help=about)
    add("--control", action="append", choices=CONTROLS)
    add("--constraint", action="append", choices=CONSTRAINTS)
    add("--json", type=results_file, help="write the rows here too")
    add("--figure", type=figure_file, help="draw error against step size here")


def run(options: argparse.Namespace) -> None:
    import jax

    from ..compare import convergence as study
    from ..reporting import show_table, write_json

    jax.config.update("jax_enable_x64", True)
    # The problems are tiny: compiling them takes most of the time.
    jax.config.update("jax_disable_most_optimizations", True)
    cases = [
        (scheme, control, constraint)
        for scheme in options.scheme or study.schemes()
        for control in options.control or ("chebyshev", "piecewise_constant")
        for constraint in options.constraint or ("free", "sphere")
        if study.find_scheme(scheme)[1].scheme(constraint) is not None
    ]
    if not cases:
        raise InputError("None of these schemes can be measured on these constraints.")
    rows = []
    for index, case in enumerate(cases, 1):
        print(f"{index} of {len(cases)}: {', '.join(case)}", end=" ", flush=True)
        rows.append(row := study.measure_order(*case))
        print(f"order {row.observed_order:.2f}, by theory {row.expected_order}", flush=True)
        if options.json:
            write_json(options.json, [row._asdict() for row in rows])
        # The number of compiled programs that a process may hold is limited.
        jax.clear_caches()
    hidden = {"steps", "errors"}
    table_rows = [{k: x for k, x in row._asdict().items() if k not in hidden} for row in rows]
    headings = {
        "error_constant": "C of error = C h^order",
        "splitting_error": "error with exact sub-steps",
        "sub_step_error": "error of the sub-steps",
        "constraint_residual": "distance from the constraint",
    }
    show_table(table_rows, headings)
    if options.figure:
        study.plot_orders(options.figure, rows)
