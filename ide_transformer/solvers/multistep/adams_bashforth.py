from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from ..base.step import StepField, Terms, U
from .multistep import AbstractMultistep, History


class AdamsBashforth(AbstractMultistep):
    """The Adams–Bashforth method of two or three steps: the polynomial through the last
    fields is integrated over the step; for steps of one length

        u_{n+1} = u_n + h (3/2 F_n - 1/2 F_{n-1}),
        u_{n+1} = u_n + h (23/12 F_n - 16/12 F_{n-1} + 5/12 F_{n-2}).

    As many orders as steps, one evaluation a step. It starts, and starts again where the
    field jumps, with a step of Heun's method: on layers with one step each that is every
    step, so take it with a continuous control. With `PiecewiseLinear`, whose derivative jumps,
    three steps are of order 2 too; `Chebyshev` and `BSpline` are smooth enough. Reference:
    Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, section III.5.

    **Arguments:**

    - `steps`: 2 or 3.
    """

    steps: Literal[2, 3] = eqx.field(static=True, default=2)

    kept: ClassVar[int] = 2

    def order(self, terms: Terms) -> int:
        return self.steps

    def first_step(self, field: StepField, u: U, increment: U) -> U:
        end = field(1, jax.tree.map(jnp.add, u, increment))
        return jax.tree.map(lambda u, a, b: u + 0.5 * (a + b), u, increment, end)

    def next_step(self, field: StepField, u: U, increment: U, history: History) -> U:
        # Newton's form of the interpolation, integrated; the third term needs two fields of
        # the past.
        h, (last, previous) = jnp.asarray(field.h), history.lengths
        first = 0.5 * h * h / last
        second = h * h * (h / 3 + last / 2) / (last + previous)
        second = jnp.where((history.known > 1) & (self.steps == 3), second, 0)

        def advance(u, k, f1, f2):
            slope, slope_before = k / h - f1, (f1 - f2) / previous
            curvature = slope / last - slope_before
            return u + k + first * slope + second * curvature

        return jax.tree.map(advance, u, increment, *history.samples)
