"""Check of a time-stepping scheme."""

from functools import cached_property

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..integration import Direct, Recursive, solve
from ..solvers import inconsistent, prepared
from ..studies.convergence import FEATURES, Case, limit, problem, refine
from .properties import AbstractProperties, Names, Options, in_dtype, slopes


def check_scheme(
    solver: diffrax.AbstractSolver, *, options: Options | None = None, without: Names = ()
) -> None:
    """Checks what every scheme does, as `check_operator` does. Where it has weights for each
    step, operator or feature it needs those of 3, 2 and 8.

    **Example:** `check_scheme(Heun())`, see `AbstractOneStep`.
    """
    with jax.enable_x64(True):
        SchemeProperties(solver, options).check(without)


@eqx.filter_jit
def end_of(equation, u0, solver, gradient):
    return solve(equation, u0, solver=solver, gradient=gradient, throw=False).u1


class SchemeProperties(AbstractProperties):
    """Properties of a scheme on an equation without jumps, with a step for each interval.
    `inputs` are the equation, its initial state and the scheme."""

    kind = diffrax.AbstractSolver
    properties = "copies", "order", "constraint", "gradient", "batches", "diffeqsolve", "yaml"

    def __init__(self, solver, options=None):
        super().__init__(solver, options, FEATURES)
        equation, u0 = problem(Case("transformer", "piecewise_linear", "free"))
        self.inputs = in_dtype((equation, u0, solver))

    @cached_property
    def end(self) -> Array:
        equation, u0, solver = self.inputs
        return end_of(equation, u0, solver, Direct())

    @property
    def offers(self):
        sizes = {"features": self.features, "num_steps": 3, "operators": 2}
        return {diffrax.AbstractSolver: sizes}

    def order(self):
        """with shorter steps the error falls by the order that it says, to 0.15 (from order
        five on, where the range ends at rounding, to 0.4)."""
        equation, u0 = in_dtype(problem(Case("transformer", "piecewise_constant", "free")))
        solver = self.inputs[2]
        order = solver.order(equation.terms)
        if order is None or inconsistent(solver) is not None:
            return (), ()
        exact = limit(solver, equation, u0)
        found = refine(equation, u0, solver, exact, order).order
        near = abs(found - order) < (0.15 if order < 5 else 0.4)
        return order if near else found, order

    def constraint(self):
        """on a sphere the state ends on it, or the solve fails."""
        equation, u0 = in_dtype(problem(Case("transformer", "piecewise_linear", "sphere")))
        solution = solve(equation, u0, solver=self.inputs[2], throw=False)
        return solution.stats["constraint_residual"] * solution.succeeded, 0, 1e-12

    def gradient(self):
        """the gradient by all weights and the state is the one of finite differences; is it
        stopped somewhere?"""
        return slopes(end_of, self.inputs, Direct())

    def batches(self):
        """beside another sample, by recursive checkpointing, it is solved the same."""
        equation, u0, solver = self.inputs
        both = end_of(equation, jnp.stack([-u0, u0]), solver, Recursive(2))
        return both[1], self.end, 1e-9

    def diffeqsolve(self):
        """`solve` and `diffrax.diffeqsolve` agree on a control without jumps; does a stage or
        sub-step reach beyond the step, where the weights of the next interval begin?"""
        return jax.tree.map(lambda u: u[-1], self.by_diffrax.ys), self.end, 1e-9

    @cached_property
    def by_diffrax(self) -> diffrax.Solution:
        equation, u0, solver = self.inputs
        method = prepared(solver, equation.constraint)
        ends = 0.0, equation.horizon, 1.0, u0
        saved = diffrax.SaveAt(t1=True, dense=True)
        return diffrax.diffeqsolve(equation.terms, method, *ends, saveat=saved, throw=False)
