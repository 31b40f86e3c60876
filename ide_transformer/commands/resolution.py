"""Measures a model at other resolutions of tokens, features and depth.

For a run whose model maps functions it prints the errors of finer solves, the order of each
resolution, and the error budget: how much error tokens, features, steps and splitting cause,
and which refinement removes the most error for its cost. With --random it compares error
budgets of random equations with measured errors. For the loss on other meshes use the command
evaluate.
"""

import argparse
from typing import Any

from ..errors import InputError
from .options import add_trust, figure_file, results_file


EXAMPLES = """\
  ide-transformer resolution runs/any_resolution --figure errors.png
  ide-transformer resolution --random 10 --scheme strang --json budgets.json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", nargs="?", help="the folder of a run")
    add("overrides", nargs="*", metavar="key=value", help="keys of its configuration")
    add("--samples", type=int, default=16, help="held-out samples of a run (default: 16)")
    add("--figure", type=figure_file, help="draw the errors of a run into this file")
    add("--random", type=int, help="try budgets on this many random equations instead")
    add(
        "--scheme",
        default="lie_trotter",
        help="with --random: the scheme (default: lie_trotter), as in the command convergence",
    )
    add("--json", type=results_file, help="write the results here too")
    add_trust(parser)


def run(options: argparse.Namespace) -> None:
    if (options.run is None) == (options.random is None):
        raise InputError("give either a run or --random NUMBER, for example --random 10.")
    results = random_budgets(options) if options.run is None else errors(options)
    if options.json:
        from ..reporting import write_json

        write_json(options.json, results)


def random_budgets(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Error budgets of random equations against what is measured."""
    import jax
    from rich.progress import track

    from ..reporting import Terminal, show_table
    from ..studies.convergence import find_scheme
    from ..studies.resolution import random_problem, tried_budget

    number = options.random
    if number < 1:
        raise InputError(f"--random {number}: give at least 1.")
    name, entry = find_scheme(options.scheme)
    if entry.free is None or entry.block != "transformer":
        raise InputError(
            f"--scheme {name}: it cannot solve an equation of attention and feed-forward "
            "without a constraint; give another, for example strang."
        )
    jax.config.update("jax_enable_x64", True)
    rows = []
    for seed in track(range(number), "trying budgets", console=Terminal()):
        rows.append({"equation": seed, **tried_budget(random_problem(seed, entry.free)).row})
        # The number of compiled programs that a process may hold is limited.
        jax.clear_caches()
    headings = {
        "sum": "sum of the estimated parts",
        "measured": "measured error",
        "named": "named as the cheapest refinement",
        "cheapest": "cheapest as measured",
    }
    show_table(rows, headings)
    right = sum(row["named"] == row["cheapest"] for row in rows)
    near = sum(abs(row["sum"] / row["measured"] - 1) <= 0.2 for row in rows)
    print(f"the cheapest refinement was named in {right} of {number}; the parts add up to the")
    print(f"measured error within 20 % in {near} of {number}")
    return rows


def errors(options: argparse.Namespace) -> dict[str, Any]:
    """Errors, orders and the budget of a run."""
    import jax

    from ..dynamics import error_budget
    from ..reporting import Terminal, show_table
    from ..studies.resolution import problem_of, refinement_errors
    from ..training import load_model

    jax.config.update("jax_enable_x64", True)
    loaded = load_model(options.run, options.overrides, trust=options.trust)
    solve = problem_of(loaded, options.samples)
    rows = refinement_errors(solve, Terminal().print)
    headings = {
        "resolution": "refined",
        "at": "to",
        "error": "relative error",
        "order": "observed order",
        "cost": "operations, relative to the run",
    }
    show_table(rows, headings)
    budget = error_budget(solve.model, solve.inputs, solve.tokens)
    parts = [part._asdict() for part in budget.parts]
    headings = {
        "resolution": "error of",
        "size": "its size",
        "share": "its share of the whole error",
        "left": "whole error after the refinement",
        "cost": "operations after it, relative to before",
    }
    show_table(parts, headings)
    here = ", ".join(solve.described(x) for x in ("tokens", "features", "depth"))
    cheapest = budget.cheapest
    print(f"error at {here}: {budget.total:.2e}. The cheapest refinement is")
    print(f"{cheapest.refinement}: {cheapest.left:.2e} for {cheapest.cost:.2f} times the cost.")
    if options.figure:
        from ..figures import plot_curves

        curves: dict[str, tuple[list[float], list[float]]] = {}
        for row in rows:
            costs, sizes = curves.setdefault(row["resolution"], ([], []))
            costs.append(row["cost"])
            sizes.append(row["error"])
        look = dict(title="The error of each resolution, and its cost", marker="o", log="xy")
        x = "operations of a solve, relative to the first"
        plot_curves(options.figure, curves, x=x, y="relative error", **look)
    found = {"total": budget.total, "parts": parts, "cheapest": cheapest.resolution}
    return {"errors": rows, **found}
