"""Implicit one-step schemes."""

from typing import ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...arguments import PositiveFloat
from ..base.evaluations import EvaluationCount
from ..base.scheme import AbstractFieldScheme
from ..base.step import Step, StepField, Terms, U
from .newton_krylov import Root, find_root


class AbstractImplicitScheme(AbstractFieldScheme):
    """A scheme that solves equations in each step; it carries the count of its evaluations."""

    def start(self, field: StepField, u: Array) -> EvaluationCount:
        return EvaluationCount(jnp.zeros((), u.dtype))


def solve_stage(
    field: StepField,
    c: float | int,
    base: Array,
    weight: float,
    guess: Array,
    tolerance: PositiveFloat | None,
) -> Root:
    """The stage `Y = base + weight h F(t0 + c h, Y)`."""
    return find_root(_residual, guess, (field, c, base, weight), tolerance=tolerance)


def _residual(stage: Array, inputs: tuple[StepField, float, Array, float]) -> Array:
    field, c, base, weight = inputs
    return stage - base - weight * field(c, stage)


class AbstractOneStage(AbstractImplicitScheme):
    """An implicit scheme of one stage,

        Y = u_n + c h F(t_n + c h, Y),   u_{n+1} = u_n + h F(t_n + c h, Y),

    at the fraction c of the step.
    """

    # c.
    node: eqx.AbstractClassVar[float]

    tolerance: PositiveFloat | None = eqx.field(static=True, default=None)

    def error(self, increment: Array, explicit: Array) -> Array | None:
        """An estimate of the local error, if there is one, from the increment of the step
        and that of Euler's method."""
        return None

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        c, explicit = self.node, field(0, u)
        root = solve_stage(field, c, u, c, u + c * explicit, self.tolerance)
        y1 = (root.value - (1 - c) * u) / c
        return Step.between(
            u,
            y1,
            error=self.error(y1 - u, explicit),
            state=state.plus(1 + root.evaluations),
            result=root.result,
        )


class ImplicitEuler(AbstractOneStage, diffrax.AbstractAdaptiveSolver):
    """The implicit Euler method,

        u_{n+1} = u_n + h F(t_{n+1}, u_{n+1}),

    solved by Newton–Krylov. First order, for stiff fields; the error estimate compares it
    with the trapezoidal rule.

    **Arguments:**

    - `tolerance`: of Newton's method, relative and absolute; by default one that fits the
      dtype of the state.
    """

    node: ClassVar[float] = 1.0

    def order(self, terms: Terms) -> int:
        return 1

    def error_order(self, terms: Terms) -> int:
        return 2

    def error(self, increment: Array, explicit: Array) -> Array:
        return 0.5 * (increment - explicit)


class ImplicitMidpoint(AbstractOneStage):
    """The implicit midpoint rule,

        u_{n+1} = u_n + h F(t_n + h/2, (u_n + u_{n+1})/2),

    solved by Newton–Krylov. Second order, symmetric; it keeps quadratic invariants.
    Reference: Hairer, Lubich, Wanner, Geometric Numerical Integration, section II.1.

    **Arguments:**

    - `tolerance`: of Newton's method, relative and absolute; by default one that fits the
      dtype of the state.
    """

    node: ClassVar[float] = 0.5

    def order(self, terms: Terms) -> int:
        return 2
