"""The study of resolutions: errors at other tokens, features and steps, and error budgets tried
on random equations."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import equation as eq
from ..dynamics import ErrorBudget, FunctionSolve, error_budget, gain, refinements
from ..dynamics.meshes import relative_error
from ..errors import InputError
from ..integration import Mesh
from ..models import Field, OperatorModel, is_built_as
from ..solvers import LieTrotter
from ..training import LoadedModel, evaluation_task
from ..training.measure.evaluation import at_least_one


# By which tokens and features are multiplied for what an error budget is measured against.
_FINE = 8

# Of random equations.
_MODES = 8
_WAVES = 3
# The coefficient of a function over that of the one before it.
_DECAY = 0.6


def refinement_errors(
    solve: FunctionSolve, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """The errors of one, two and four times the tokens, the features and the steps, each with
    the others as they are, against four times the last. The order is that of what they change:
    `log2(‖u_1 - u_2‖ / ‖u_2 - u_4‖)`, which tends to p where the error is `C h^p`. (Errors
    against a finer solution of the same scheme fall faster than that.) It stands in the last
    row of each. `say` is called with a line before each resolution."""
    domain = solve.domain
    rows = []
    features = ["features"] if solve.has_functions else []
    for name in ("tokens", *features, "depth"):
        say(f"errors of {name}")
        finest = solve.finer(name, 16).outputs(domain)
        solutions = []
        for factor in (1, 2, 4):
            finer = solve.finer(name, factor)
            solutions.append(finer.outputs(domain))
            rows.append(
                {
                    "resolution": name,
                    "at": finer.described(name),
                    "error": float(relative_error(solutions[-1], finest)),
                    "order": None,
                    "cost": finer.cost / solve.cost,
                }
            )
        first, second = (
            float(jnp.linalg.norm(x - y)) for x, y in itertools.pairwise(solutions)
        )
        if first and second:
            rows[-1]["order"] = float(np.log2(first / second))
    return rows


def problem_of(loaded: LoadedModel, samples: int = 16) -> FunctionSolve:
    """The solve of a run for held-out functions of its task, by cubic interpolation between
    the points where they are known, in float64."""
    model = loaded.model.ordinary
    if not is_built_as(model, OperatorModel):
        raise InputError(
            f"{loaded.path} holds a {type(model).__name__}, which does not map functions; give "
            "a run of an operator_model; for losses, ide-transformer evaluate --mesh."
        )
    at_least_one("samples", samples)
    task = evaluation_task(loaded)
    batch = next(task.held_out(samples, samples))
    channels = model.inputs.channels is not None
    if isinstance(batch.inputs, Field) or np.ndim(batch.inputs) - channels != 2:
        raise InputError(
            f"{loaded.path}: its functions in dimension {model.inputs.dimension} come with "
            "points of their own or in the plane; errors of refinement are measured on the "
            "grid of a line."
        )
    values = jnp.asarray(np.asarray(batch.inputs), jnp.result_type(float))
    source = model.inputs.points_of(values.shape[1])

    def inputs(points: Array) -> Array:
        to = eq.interpolation(source, eq.TokenDomain(points), degree=3)
        return to(values) if channels else to(values[..., None])[..., 0]

    wide = jax.tree.map(
        lambda x: x.astype(values.dtype) if getattr(x, "dtype", None) == jnp.float32 else x,
        loaded.model,
    )
    return FunctionSolve.of(wide, inputs, None)


class Trial(NamedTuple):
    """An error budget, the error against the solution at eight times the tokens and features,
    exact in depth, and that after each refinement, by resolution."""

    budget: ErrorBudget
    measured: float
    left: dict[str, float]

    @property
    def row(self) -> dict[str, Any]:
        """A line of a table; the cheapest refinement removes the most for what it costs."""
        costs = {part.resolution: part.cost for part in self.budget.parts}
        gains = {x: gain(self.measured, left, costs[x]) for x, left in self.left.items()}
        return {
            **{part.resolution: part.share for part in self.budget.parts},
            "sum": self.budget.total,
            "measured": self.measured,
            "named": self.budget.cheapest.resolution,
            "cheapest": max(gains, key=lambda x: gains[x]),
        }


def tried_budget(solve: FunctionSolve) -> Trial:
    """The error budget of a solve, and the errors of it and of its refinements."""
    budget = error_budget(solve.model, solve.inputs, solve.tokens)
    reference = solve.finer("tokens", _FINE).exact()
    if solve.has_functions:
        reference = reference.finer("features", _FINE)
    true = reference.outputs(solve.domain)
    solves = {"": solve, **refinements(solve)}
    left = {
        name: float(relative_error(finer.outputs(solve.domain), true))
        for name, finer in solves.items()
    }
    return Trial(budget, left.pop(""), left)


def random_problem(seed: int, solver: diffrax.AbstractSolver = LieTrotter()) -> FunctionSolve:
    """A random equation of attention and feed-forward, the same at all depths, between random
    linear maps, and random functions on [0, 1]; at a random number of tokens, features and
    steps, so that now one of them, now another has the largest error. Equal weights at the
    middles of equal parts make the rules of tokens and features of second order.
    """
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
