"""Measures a model at other resolutions of tokens, features and depth.

Of a run whose model maps functions it prints the errors of finer solves, the order of each
resolution, and the error budget: what tokens, features, steps and splitting are to blame for,
and which refinement removes the most for what it costs. With --tokens, --widths and --steps it
prints the loss of any run at all of them together. With --random it tries error budgets on
random equations against what is measured.
"""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
from pathlib import Path
from typing import Any

import jax
from rich.progress import track

from ide_transformer import InputError, error_budget
from ide_transformer.figures import Curve, plot_panels
from ide_transformer.reporting import Terminal, show_table, write_json
from ide_transformer.resolution import Resolved
from ide_transformer.studies.resolution import (
    losses_at,
    problem_of,
    random_problem,
    refinement_errors,
    tried_budget,
)
from ide_transformer.training import load_model, run_script
from ide_transformer.training.script import figure_file, integers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python scripts/resolution.py runs/any_resolution --figure errors.png\n"
        "  python scripts/resolution.py runs/any_resolution --tokens 20,40,64 "
        "--widths 40,56,96 --steps 3,6,12\n"
        "  python scripts/resolution.py --random 10 --json budgets.json",
    )
    parser.add_argument("run", nargs="?", help="the folder of a run")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="of the run, as in its configuration"
    )
    for name, example in (("tokens", "20,40,64"), ("widths", "40,56,96"), ("steps", "3,6,12")):
        parser.add_argument(
            f"--{name}", type=integers, help=f"for losses, for example {example}"
        )
    parser.add_argument(
        "--samples", type=int, help="held-out samples (default: all for losses)"
    )
    parser.add_argument(
        "--part", choices=("validation", "test"), default="test", help="for losses"
    )
    parser.add_argument("--random", type=int, help="try budgets on so many random equations")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument(
        "--figure", type=figure_file, help="also draw errors against resolutions"
    )
    arguments = parser.parse_intermixed_args()
    grids = arguments.tokens, arguments.widths, arguments.steps
    if (arguments.run is None) == (arguments.random is None):
        raise InputError("give either a run or --random NUMBER, for example --random 10.")
    if arguments.figure and (arguments.random is not None or any(grids)):
        raise InputError(
            "--figure draws errors against resolutions; leave --random, --tokens, --widths and "
            "--steps out."
        )
    if arguments.random is not None:
        unheard, measured = ("tokens", "widths", "steps", "samples", "part"), "--random"
    else:
        unheard, measured = () if any(grids) else ("part",), "the errors of finer solves"
    told = [f"--{x}" for x in unheard if getattr(arguments, x) != parser.get_default(x)]
    if told:
        raise InputError(f"{' and '.join(told)} says nothing beside {measured}; drop it.")
    if arguments.random is not None:
        results: Any = random_budgets(arguments.random)
    elif any(grids):
        results = losses(arguments, grids)
    else:
        results = errors(arguments)
    if arguments.json:
        write_json(arguments.json, results)


def random_budgets(number: int) -> list[dict[str, Any]]:
    """Error budgets of random equations against what is measured."""
    if number < 1:
        raise InputError(f"--random {number}: give at least 1.")
    jax.config.update("jax_enable_x64", True)
    rows = []
    for seed in track(range(number), "trying budgets", console=Terminal()):
        rows.append({"equation": seed, **tried_budget(random_problem(seed)).row})
        # The number of compiled programs that a process may hold is limited.
        jax.clear_caches()
    show_table(rows)
    right = sum(row["named"] == row["cheapest"] for row in rows)
    near = sum(abs(row["sum"] / row["measured"] - 1) <= 0.2 for row in rows)
    print(f"the cheapest refinement was named in {right} of {number}; the parts add up to the")
    print(f"measured error within 20 % in {near} of {number}")
    return rows


def losses(arguments: argparse.Namespace, grids: tuple[Any, ...]) -> list[dict[str, Any]]:
    """The loss of a run at all of some resolutions together."""
    loaded = load_model(arguments.run, arguments.overrides)
    if loaded.config is None:
        raise InputError(f"{arguments.run} is no run, whose data would be known; give one.")
    model = loaded.model
    own: tuple[Any, ...] = None, model.features, model.control.num_intervals
    tokens, widths, steps = (x or [y] for x, y in zip(grids, own, strict=True))
    rows = losses_at(
        loaded, tokens, widths, steps, arguments.samples, arguments.part, Terminal().print
    )
    show_table(rows)
    return rows


def errors(arguments: argparse.Namespace) -> dict[str, Any]:
    """Errors, orders and the budget of a run."""
    jax.config.update("jax_enable_x64", True)
    loaded = load_model(arguments.run, arguments.overrides)
    solve = problem_of(loaded, 16 if arguments.samples is None else arguments.samples)
    rows = refinement_errors(solve, Terminal().print)
    show_table(rows)
    budget = budget_of(solve)
    if arguments.figure:
        draw(arguments.figure, rows)
    return {"errors": rows, **budget}


def budget_of(solve: Resolved) -> dict[str, Any]:
    """Prints the error budget."""
    budget = error_budget(solve.model, solve.inputs, solve.tokens)
    parts = [part._asdict() for part in budget.parts]
    show_table(parts)
    here = ", ".join(solve.described(x) for x in ("tokens", "features", "depth"))
    cheapest = budget.cheapest
    print(f"error at {here}: {budget.total:.2e}. The cheapest refinement is")
    print(f"{cheapest.refinement}: {cheapest.left:.2e} for {cheapest.cost:.2f} times the cost.")
    return {"total": budget.total, "parts": parts, "cheapest": cheapest.resolution}


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Errors against what they cost, a line for each resolution."""
    curves = []
    for name in dict.fromkeys(row["resolution"] for row in rows):
        own = [row for row in rows if row["resolution"] == name]
        curves.append(Curve(name, [row["cost"] for row in own], [row["error"] for row in own]))
    plot_panels(
        path,
        {"": curves},
        x="operations of a solve, over those of the first",
        y="relative error",
        marker="o",
        log="xy",
    )


if __name__ == "__main__":
    run_script(main)
