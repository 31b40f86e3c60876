"""Marches a model interval by interval, for quantities that a solve does not report."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, PyTree

from .. import solvers
from ..equation import Depth, Equation, LayerNorm, RMSNorm, State, operator_fields, root
from ..errors import InputError
from ..models import Model


class March(NamedTuple):
    """The equation of a model for some inputs, the initial state, and the model's steps."""

    equation: Equation
    u0: State
    solver: diffrax.AbstractSolver
    steps: int

    @classmethod
    def of(cls, name: str, model: Model, inputs: PyTree[ArrayLike]) -> "March":
        """The march of a model. Operators compute in full precision. Raises, for the function
        `name`, for exits, adaptive steps and schemes with memory."""
        if model.exit is not None or model.mesh.stepsize_controller is not None:
            raise InputError(f"{name}: take model.with_exit(None).on(Mesh(steps=…)).")
        equation, u0 = model.initial_value_problem(inputs)
        refuse_memory(name, equation, model.mesh.scheme, u0)
        # diffrax's loop over stages has no forward mode.
        solver = solvers.prepared(model.mesh.scheme, model.constraint, unroll=True)
        return cls(equation, u0, solver, model.steps)

    def states(
        self, pushes: Float[Array, "knots *batch tokens features"]
    ) -> Float[Array, "knots *batch tokens features"]:
        """The states at all knots, with a push added to each."""
        first = self.u0 + pushes[0]

        def visit(u, terms, start, push):
            ends = step_ends(self.equation, start, self.steps)
            u = over_interval(self.solver, terms, ends, u) + push
            return u, u

        _, later = scan_intervals(self.equation, visit, first, pushes[1:], dtype=first.dtype)
        return jnp.concatenate([first[None], later])

    def on_constraint(self) -> State:
        """The state at 0+: the projection of the initial state, or the initial state itself for
        `LayerNorm` and `RMSNorm`, which are not projections."""
        constraint = operator_fields(self.equation.terms_of(0))[-1].constraint(0.0)
        if isinstance(constraint, LayerNorm | RMSNorm):
            return self.u0
        return constraint.project(self.u0)

    @property
    def no_pushes(self) -> Float[Array, "knots *batch tokens features"]:
        """Zeros, `[intervals + 1, …]`."""
        number = self.equation.control.layers + 1
        return jnp.zeros((number, *self.u0.shape), self.u0.dtype)


def scan_intervals(
    equation: Equation,
    visit: Callable[[PyTree, diffrax.MultiTerm, Array, Array], tuple[PyTree, PyTree]],
    carry: PyTree,
    extra: PyTree[Array] = (),
    *,
    dtype: DTypeLike = float,
) -> tuple[PyTree, Any]:
    """Scan over the intervals with `visit(carry, terms, start, extra) -> (carry, out)`. `visit`
    gets the terms of the interval, the depth of its start, and a slice of the arrays `extra`,
    whose leading axis counts intervals. `dtype` is the dtype of depth; give the state's, to
    which it is promoted otherwise."""

    def body(carry, inputs):
        index, weights, extra = inputs
        terms = equation.interval_terms(index, weights)
        start = index * equation.control.interval_length
        return visit(carry, terms, start, extra)

    indices = jnp.arange(equation.control.layers, dtype=dtype)
    return lax.scan(body, carry, (indices, equation.intervals(), extra))


def step_ends(equation: Equation, start: Depth, number: int) -> list[Depth]:
    """The depths that divide the interval from `start` into `number` equal steps."""
    length = equation.control.interval_length
    return [start + length * n / number for n in range(number + 1)]


def over_interval(
    solver: diffrax.AbstractSolver, terms: diffrax.MultiTerm, ends: Sequence[Depth], u: Array
) -> Array:
    """The state after steps with these ends, the first step of which starts a solve."""
    state = solvers.StepField(terms, *ends[:2]).start(solver, u)
    for number, (t0, t1) in enumerate(itertools.pairwise(ends)):
        step = solvers.StepField(terms, t0, t1).step(solver, u, state, number == 0)
        u = step.y1
        state = step.solver_state
    return u


def refuse_memory(
    name: str, equation: Equation, solver: diffrax.AbstractSolver, u0: Array
) -> None:
    """Raises for a scheme with memory across intervals."""
    field = solvers.StepField(equation.terms_of(0), 0.0, equation.control.interval_length)
    if equation.continuous or not solvers.restarts_at_jumps(solver):
        solvers.start_inside(name, solver, field, u0, "solver=LieTrotter()")


def square(y: PyTree[Array]) -> Float[Array, ""]:
    """`Σ |y|²`."""
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(y)), jnp.zeros(()))


def relative_error(y: PyTree[Array], exact: PyTree[Array]) -> Float[Array, ""]:
    """`(Σ |y - y*|² / Σ |y*|²)^½`; y takes the shape of y*."""
    off = jax.tree.map(lambda x, x1: jnp.reshape(x, x1.shape) - x1, y, exact)
    return root(square(off) / square(exact))
