"""Runge–Kutta schemes beside those of diffrax."""

from collections.abc import Callable
from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...arguments import PositiveInt
from ...errors import InputError
from ..base.evaluations import EvaluationCount
from ..base.scheme import AbstractFieldScheme, AbstractOneStep
from ..base.step import Step, StepField, Terms, U
from .explicit_runge_kutta import ExplicitRungeKutta, combine, stacked


class RK4(AbstractFieldScheme):
    """The classical Runge–Kutta method,

        k_1 = h F(t_n, u_n),               k_2 = h F(t_n + h/2, u_n + k_1/2),
        k_3 = h F(t_n + h/2, u_n + k_2/2), k_4 = h F(t_n + h, u_n + k_3),

        u_{n+1} = u_n + (k_1 + 2 k_2 + 2 k_3 + k_4)/6.

    Fourth order, four evaluations a step, no error estimate. Reference: Kutta, Z. Math.
    Phys. 46 (1901).
    """

    interpolation_cls: ClassVar[Callable] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    def order(self, terms: Terms) -> int:
        return 4

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        increments = [field(0, u)]
        for node in (1 / 2, 1 / 2, 1):
            increments.append(field(node, combine(u, (node,), increments[-1:])))
        y1 = combine(u, (1 / 6, 1 / 3, 1 / 3, 1 / 6), increments)
        return Step.between(u, y1, k=stacked(increments))


class GatedRK2(AbstractOneStep):
    """Heun's method with a learned gate between its two stages, for each token

        u_{n+1} = u_n + h (g F_1 + (1 - g) F_2),   g = sigmoid(w·[F_1, F_2] + b),
        F_1 = F(t_n, u_n),   F_2 = F(t_n + h, u_n + h F_1).

    It starts with w = 0 and b = 0, which is Heun's method; any other gate is first order.
    `Residual(GatedRK2(features))` is a block of the ODE Transformer, whose gate all layers
    share. Reference: Li et al., arXiv 2203.09176.

    **Arguments:**

    - `features`: width of the state.
    """

    weight: Float[Array, " twice_features"]
    bias: Float[Array, ""]

    def __init__(self, features: PositiveInt):
        self.weight = jnp.zeros(2 * features)
        self.bias = jnp.zeros(())

    def order(self, terms: Terms) -> int:
        return 1

    def advance(self, field: StepField, u: Array) -> Array:
        first = field(0, u)
        second = field(1, u + first)
        # The gate sees the fields, not the increments, which shrink with the step.
        fields = jnp.concatenate([first, second], axis=-1) / field.h
        if fields.shape[-1] != self.weight.shape[0]:
            raise InputError(
                f"GatedRK2(features={self.weight.shape[0] // 2}): the state has "
                f"{u.shape[-1]} features; build it for as many."
            )
        gate = jax.nn.sigmoid(fields @ self.weight + self.bias)[..., None]
        gate = jnp.broadcast_to(gate, u.shape).astype(u.dtype)
        return u + gate * first + (1 - gate) * second


def carries_past(solver: diffrax.AbstractSolver, state: PyTree) -> bool:
    """Whether the steps of a scheme depend on what it carries of earlier ones. The stage that
    a Runge–Kutta method uses again does not change a step, nor does a count of evaluations.

    **Arguments:**

    - `solver`: the scheme.
    - `state`: that of the scheme before its first step, or the structure of it.
    """
    while issubclass(type(solver), diffrax.AbstractWrappedSolver):
        solver = solver.solver  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(solver, diffrax.AbstractRungeKutta | ExplicitRungeKutta):
        return False
    leaves = jax.tree.leaves(state, is_leaf=_is_count)
    return not all(map(_is_count, leaves))


def refuse_past(
    where: str, solver: diffrax.AbstractSolver, state: PyTree, *, why: str, example: str
) -> None:
    """**Raises:** `InputError` for a scheme whose steps depend on earlier ones.

    **Arguments:**

    - `where`: the object or function that cannot use it, as the message begins.
    - `solver`, `state`: as for `carries_past`.
    - `why`: why there are no earlier steps.
    - `example`: what to write instead.
    """
    if carries_past(solver, state):
        raise InputError(
            f"{where}: {type(solver).__name__} uses earlier steps, but {why}; use a scheme "
            f"without a memory, for example {example}."
        )


def _is_count(x: object) -> bool:
    return isinstance(x, EvaluationCount)
