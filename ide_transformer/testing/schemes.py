"""Checks time-stepping schemes."""

from dataclasses import replace
from functools import cached_property

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import equation as eq
from ..compare.convergence import limit, refine, scheme_limit
from ..integration import Direct, Recursive, solve
from ..solvers import inconsistent_scheme, prepare_solver
from .properties import AbstractProperties, Names, Options, in_dtype, slopes


TOKENS = 3
INTERVALS = 3


def check_scheme(
    solver: diffrax.AbstractSolver, *, options: Options | None = None, without: Names = ()
) -> None:
    """Checks the properties of a scheme; see `check_operator`. Its weights must be for 3 steps,
    2 operators and 8 features.

    **Example:** `check_scheme(Heun())`, see `AbstractOneStep`.
    """
    with jax.enable_x64(True):
        SchemeProperties(solver, options=options).check(without)


class Bend(eq.AbstractOperator):
    """`A(u) = sin(u M + p + 3 t)`."""

    matrix: Array
    phase: Array

    def at(self, t, args):
        return replace(self, phase=self.phase + 3 * t)

    def __call__(self, u, domain):
        return jnp.sin(u @ self.matrix + jnp.broadcast_to(self.phase, u.shape))


class Scale(eq.AbstractLinearOperator):
    """`A(u) = r u`: features grow or decay."""

    rate: Array
    dissipative = False

    def apply(self, function, u, domain):
        return jnp.broadcast_to(function(self.rate.astype(u.dtype)), u.shape) * u


def draw_normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@eqx.filter_jit
def end_of(equation, u0, solver, gradient):
    return solve(equation, u0, solver=solver, gradient=gradient, throw=False).u1


@eqx.filter_jit
def distance_at_end(constraint, equation, u0, solver):
    """The distance from the constraint at the end; 0 for a solve that fails."""
    solution = solve(equation, constraint.project(u0), solver=solver, throw=False)
    return solution.stats["constraint_residual"] * solution.succeeded


class SchemeProperties(AbstractProperties):
    """Properties of a scheme, with a step in each of three intervals. `inputs` are an equation
    without jumps, its initial state and the scheme. The operators are fast to compile."""

    kind = diffrax.AbstractSolver
    properties = "copies", "order", "constraint", "gradient", "batches", "diffeqsolve", "yaml"

    def __init__(self, solver, operators=None, options=None, features=8):
        super().__init__(solver, options, features)
        if operators is None:
            bend = Bend(0.7 * draw_normal(1, features, features), draw_normal(10, features))
            operators = bend, Scale(jnp.linspace(-0.5, 0.4, features))
        self.block = in_dtype(operators)
        self.solver = in_dtype(solver)
        self.u0, self.other = draw_normal(5, 2, TOKENS, features)
        self.inputs = self.equation(eq.PiecewiseLinear), self.u0, self.solver

    def equation(self, control, constraint: eq.AbstractConstraint = eq.Free()):
        """The equation with the block, scaled differently at each depth."""
        num_blocks = INTERVALS if control is eq.PiecewiseConstant else INTERVALS + 1
        factors = 1 + 0.3 * np.cos(1 + np.arange(num_blocks))
        arrays, rest = eqx.partition(self.block, eqx.is_inexact_array)
        stacked = jax.tree.map(lambda x: jnp.asarray(np.multiply.outer(factors, x)), arrays)
        theta = control(eqx.combine(stacked, rest))
        return eq.Equation(theta, constraint, eq.TokenDomain.uniform(TOKENS))

    @cached_property
    def end(self) -> Array:
        equation, u0, solver = self.inputs
        return end_of(equation, u0, solver, Direct())

    @property
    def offers(self):
        sizes = {"features": self.features, "num_steps": 3, "operators": 2}
        return {diffrax.AbstractSolver: sizes}

    def order(self):
        """with shorter steps the error falls by its order, to 0.15 (from order five on, near
        rounding, to 0.4)."""
        equation = self.equation(eq.PiecewiseConstant)
        order = self.solver.order(equation.terms)
        inexact = (
            inconsistent_scheme(self.solver) is not None and scheme_limit(self.solver) is None
        )
        if order is None or inexact:
            return (), ()
        exact = limit(self.solver, equation, self.u0)
        measured = refine(equation, self.u0, self.solver, exact, order).order
        is_near = abs(measured - order) < (0.15 if order < 5 else 0.4)
        return order if is_near else measured, order

    def constraint(self):
        """on a sphere the state ends on it, or the solve fails."""
        sphere = eq.Sphere()
        equation = self.equation(eq.PiecewiseLinear, sphere)
        return distance_at_end(sphere, equation, self.u0, self.solver), 0, 1e-12

    def gradient(self):
        """the gradient equals finite differences; is it stopped somewhere?"""
        return slopes(end_of, self.inputs, Direct())

    def batches(self):
        """a sample has the same solution in a batch with another one and `Recursive`."""
        equation, u0, solver = self.inputs
        return end_of(equation, jnp.stack([-u0, u0]), solver, Recursive(2))[1], self.end, 1e-9

    def diffeqsolve(self):
        """`solve` and `diffrax.diffeqsolve` agree on a control without jumps; does a stage or
        sub-step reach beyond the step, into the next interval?"""
        return jax.tree.map(lambda u: u[-1], self.by_diffrax.ys), self.end, 1e-9

    @cached_property
    def by_diffrax(self) -> diffrax.Solution:
        equation, u0, solver = self.inputs
        method = prepare_solver(solver, equation.constraint)
        ends = 0.0, equation.horizon, 1.0, u0
        saved = diffrax.SaveAt(t1=True, dense=True)
        return diffrax.diffeqsolve(equation.terms, method, *ends, saveat=saved, throw=False)
