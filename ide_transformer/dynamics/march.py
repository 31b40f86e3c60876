"""Marches a model interval by interval, for quantities that a solve does not report."""

from collections.abc import Callable
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
from ..integration.march import Carry, Steps, plan_steps
from ..models import Model


class March(NamedTuple):
    """The steps of a model for some inputs, and the initial state."""

    steps: Steps
    u0: State

    @classmethod
    def of(cls, name: str, model: Model, inputs: PyTree[ArrayLike]) -> "March":
        """Plans the steps of a model. Operators compute in full precision. Raises `InputError`,
        which begins with `name`, for exits, adaptive steps and multistep schemes."""
        if model.exit is not None or model.mesh.controller is not None:
            raise InputError(f"{name}: use model.with_exit(None).on(Mesh(steps=…)).")
        equation, u0 = model.initial_value_problem(inputs)
        scheme = model.solver
        if equation.continuous or not solvers.restarts_at_jumps(scheme):
            field = solvers.StepField(
                equation.terms_of(0), 0.0, equation.control.interval_length
            )
            solvers.start_inside(name, scheme, field, u0, "solver=LieTrotter()")
        return cls(plan_steps(equation, scheme, model.steps, u0), u0)

    @property
    def equation(self) -> Equation:
        return self.steps.equation

    def advance(self, terms: diffrax.MultiTerm, start: Depth, u: State) -> State:
        """The state after the interval from depth `start`, whose first step starts a solve."""
        edges = jnp.asarray(start + self.steps.offsets)
        state = solvers.StepField(terms, *edges[:2]).start(self.steps.solver, u)
        carry = Carry(u, state, diffrax.RESULTS.successful)
        carry, _ = self.steps.advance(terms, edges, carry, None, loop=False)
        return carry.u

    def states(
        self, pushes: Float[Array, "knots *batch tokens features"]
    ) -> Float[Array, "knots *batch tokens features"]:
        """The states at all knots, with a push added to each."""
        first = self.u0 + pushes[0]

        def visit(u, terms, start, push):
            u = self.advance(terms, start, u) + push
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
        num_knots = self.equation.control.layers + 1
        return jnp.zeros((num_knots, *self.u0.shape), self.u0.dtype)


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
    whose leading axis counts intervals. `dtype`: the dtype of depth; pass the state's."""

    def body(carry, inputs):
        index, weights, extra = inputs
        terms = equation.interval_terms(index, weights)
        start = index * equation.control.interval_length
        return visit(carry, terms, start, extra)

    indices = jnp.arange(equation.control.layers, dtype=dtype)
    return lax.scan(body, carry, (indices, equation.intervals(), extra))


def square(y: PyTree[Array]) -> Float[Array, ""]:
    """`Σ |y|²`."""
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(y)), jnp.zeros(()))


def relative_error(y: PyTree[Array], exact: PyTree[Array]) -> Float[Array, ""]:
    """`(Σ |y - y*|² / Σ |y*|²)^½`; y takes the shape of y*."""
    error = jax.tree.map(lambda x, x1: jnp.reshape(x, x1.shape) - x1, y, exact)
    return root(square(error) / square(exact))
