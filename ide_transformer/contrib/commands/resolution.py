"""Measures a model at other resolutions of tokens, features and depth.

For a run whose model maps functions: the errors of finer solves, the order of each resolution,
and the error budget, which names the refinement that removes the most error for its cost.
"""

import argparse

from ide_transformer.commands import add_trust, figure_file, results_file


EXAMPLES = "  ide-transformer resolution runs/any_resolution --figure errors.png"


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", help="the folder of a run")
    add("overrides", nargs="*", metavar="key=value", help="keys of its configuration")
    add("--samples", type=int, default=16, help="held-out samples (default: 16)")
    add("--figure", type=figure_file, help="draw the errors into this file")
    add("--json", type=results_file, help="write the results here too")
    add_trust(parser)


def run(options: argparse.Namespace) -> None:
    import jax

    from ide_transformer.contrib.resolution import problem_of, refinement_errors
    from ide_transformer.dynamics import error_budget
    from ide_transformer.reporting import Terminal, show_table, write_json
    from ide_transformer.training import load_model

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
    print(f"error at {here}: {budget.total:.2e}")
    after = f"{cheapest.left:.2e} for {cheapest.cost:.2f} times the cost"
    print(f"the cheapest refinement: {cheapest.refinement}, {after}")
    if options.figure:
        from ide_transformer.figures import plot_curves

        curves: dict[str, tuple[list[float], list[float]]] = {}
        for row in rows:
            costs, sizes = curves.setdefault(row["resolution"], ([], []))
            costs.append(row["cost"])
            sizes.append(row["error"])
        look = dict(title="The error of each resolution, and its cost", marker="o", log="xy")
        x = "operations of a solve, relative to the first"
        plot_curves(options.figure, curves, x=x, y="relative error", **look)
    if options.json:
        found = {"total": budget.total, "parts": parts, "cheapest": cheapest.resolution}
        write_json(options.json, {"errors": rows, **found})
