"""Compares error budgets of random equations with measured errors.

Errors are measured against a solution with eight times the tokens and features and exact steps.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from commands import start
from ide_transformer import equation as eq
from ide_transformer.commands.options import results_file
from ide_transformer.dynamics import (
    FunctionSolve,
    error_budget,
    gain,
    refinements,
    relative_error,
)
from ide_transformer.integration import Mesh
from ide_transformer.models import OperatorModel
from ide_transformer.reporting import show_table, write_json
from ide_transformer.solvers import LieTrotter, Strang


EXAMPLES = "  python scripts/error_budgets.py 10 --scheme strang --json budgets.json"
SCHEMES: Mapping[str, diffrax.AbstractSolver] = {
    "lie_trotter": LieTrotter(),
    "strang": Strang(),
}
# Features, of which each has a coefficient smaller than the one before by this factor.
_MODES = 8
_DECAY = 0.6
_WAVES = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", type=int, help="of random equations")
    parser.add_argument("--scheme", choices=SCHEMES, default="lie_trotter")
    parser.add_argument("--json", type=results_file, help="also write the rows to this file")


def run(options: argparse.Namespace) -> None:
    jax.config.update("jax_enable_x64", True)
    rows = []
    for seed in range(options.number):
        row = tried_budget(random_problem(seed, SCHEMES[options.scheme]))
        rows.append({"equation": seed, **row})
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
    print(f"named the cheapest refinement: {right} of {options.number}")
    print(f"the parts add up to the measured error within 20 %: {near} of {options.number}")
    if options.json:
        write_json(options.json, rows)


def tried_budget(solve: FunctionSolve) -> dict[str, Any]:
    """The shares of the error budget of a solve and their sum, the measured error, and the
    cheapest refinement as named by the budget and as measured."""
    budget = error_budget(solve.model, solve.inputs, solve.tokens)
    measured, left = measured_errors(solve)
    costs = {part.resolution: part.cost for part in budget.parts}
    gains = {name: gain(measured, error, costs[name]) for name, error in left.items()}
    return {
        **{part.resolution: part.share for part in budget.parts},
        "sum": budget.total,
        "measured": measured,
        "named": budget.cheapest.resolution,
        "cheapest": max(gains, key=lambda x: gains[x]),
    }


def measured_errors(solve: FunctionSolve) -> tuple[float, dict[str, float]]:
    """The error of a solve, and the error after each refinement, by resolution."""
    reference = solve.finer("tokens", 8).exact()
    if solve.has_functions:
        reference = reference.finer("features", 8)
    true = reference.outputs(solve.domain)
    solves = {"": solve, **refinements(solve)}
    left = {
        name: float(relative_error(finer.outputs(solve.domain), true))
        for name, finer in solves.items()
    }
    return left.pop(""), left


def random_problem(seed: int, solver: diffrax.AbstractSolver = LieTrotter()) -> FunctionSolve:
    """A random equation of attention and feed-forward, tied in depth, for random functions on
    [0, 1]. The numbers of tokens, features and steps are random, so that any of them may have
    the largest error. The midpoint rules of tokens and features have order two."""
    random = np.random.default_rng(seed)
    choices = (5, 8, 16), (24, 48, 96), (1, 2, 4)
    tokens, features, steps = (int(random.choice(numbers)) for numbers in choices)
    sizes = random.uniform(0.1, 0.4, size=2)
    keys = jax.random.split(jax.random.key(seed), 2)

    def block(key: Array) -> tuple[eq.AbstractOperator, ...]:
        first, second = jax.random.split(key)
        norm = eq.LayerNorm()
        attention = eq.Attention(_MODES, 2, normalization=norm, std=1.0, key=first)
        inside = eq.FeedForward(_MODES, 2 * _MODES, normalization=norm, std=1.0, key=second)
        attention, inside = jax.tree.map(_smooth, (attention, inside))
        return (
            eqx.tree_at(lambda x: x.output, attention, replace_fn=lambda x: x.times(sizes[0])),
            eqx.tree_at(lambda x: x.outer, inside, replace_fn=lambda x: x.times(sizes[1])),
        )

    model = OperatorModel(
        tokens,
        _MODES,
        control=eq.Tied.build(block, 2, key=keys[0]),
        constraint=eq.Free(),
        mesh=Mesh(solver=solver, steps=steps),
        modes=2,
        grid="midpoint",
        std=1.0,
        key=keys[1],
    )
    model = eqx.tree_at(
        lambda m: (m.inputs.embedding.weight, m.read_out.linear.weight),
        model,
        replace_fn=_smooth,
    )
    space = eq.FunctionSpace(eq.Legendre(), _MODES, eq.FeatureDomain(features))
    waves = random.normal(size=(2, 4, _WAVES))

    def inputs(points: Array) -> Array:
        angles = np.pi * np.outer(np.arange(1, _WAVES + 1), points[:, 0])
        return jnp.asarray(waves[0] @ np.cos(angles) + waves[1] @ np.sin(angles))

    return FunctionSolve(dataclasses.replace(model, space=space), inputs, tokens)


def _smooth(c: Array) -> Array:
    """Coefficients that fall with the numbers of their functions."""
    return c * _DECAY ** np.indices(c.shape).sum(axis=0)


if __name__ == "__main__":
    start(sys.modules[__name__])
