from typing import ClassVar

from jaxtyping import Array

from ..base.step import StepField, Terms
from ..multistep.multistep import AbstractMultistep, History
from .linear_part import LinearPart


class ETDAB2(AbstractMultistep):
    """The exponential two-step method for `u_t = L u + N(t, u)`, L the linear operator of
    the block: Adams–Bashforth on N, L exact,

        u_{n+1} = e^{hL} u_n + h φ_1(hL) N_n + h φ_2(hL) (N_n - N_{n-1}).

    Second order. It starts, and starts again where the field jumps, with the two-stage
    exponential method ETD2RK; the weights of L are taken at the middle of the step.
    Reference: Cox, Matthews, J. Comput. Phys. 176 (2002).
    """

    kept: ClassVar[int] = 1

    def order(self, terms: Terms) -> int:
        return 2

    def sample(self, u: Array, rate: Array) -> tuple[Array, Array]:
        return u, rate.astype(u.dtype)

    def first_step(self, field: StepField, u: Array, increment: Array) -> Array:
        part, nonlinear, euler = self._euler(field, u, increment)
        end = part.nonlinear(field(1, euler) / field.h, euler)
        return self._corrected(field, part, euler, end - nonlinear)

    def next_step(
        self, field: StepField, u: Array, increment: Array, history: History
    ) -> Array:
        part, nonlinear, euler = self._euler(field, u, increment)
        (u_before, rate_before), last = history.samples[0], history.lengths[0]
        # With the L of this step, so that a change of L does not look like one of N.
        change = nonlinear - part.nonlinear(rate_before, u_before)
        return self._corrected(field, part, euler, change * (field.h / last))

    def _euler(
        self, field: StepField, u: Array, increment: Array
    ) -> tuple[LinearPart, Array, Array]:
        """L, `N_n`, and the state after a step of exponential Euler."""
        h, part = field.h, LinearPart("ETDAB2", field)
        nonlinear = part.nonlinear((increment / h).astype(u.dtype), u)
        euler = part.exponential(h, u) + h * part.phi1(h, nonlinear)
        return part, nonlinear, euler.astype(u.dtype)

    def _corrected(
        self, field: StepField, part: LinearPart, euler: Array, change: Array
    ) -> Array:
        """The state after the step, given the change of N over it."""
        return euler + field.h * part.phi2(field.h, change.astype(euler.dtype))
