import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...arguments import PositiveFloat
from ..base.evaluations import EvaluationCount
from ..base.scheme import AbstractFieldScheme
from ..base.step import Step, StepField, U
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
