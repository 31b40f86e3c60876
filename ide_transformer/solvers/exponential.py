"""Exponential integrators."""

import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from ..equation import AbstractLinearOperator, Depth, operator_fields
from ..errors import InputError
from .multistep import AbstractMultistep, History
from .scheme import AbstractOneStep, StepField, Terms


class LinearPart:
    """`u_t = L u + N(t, u)`: L is the first operator that is diagonal in a basis of its own,
    its weights those at the middle of the step, and N is all the rest. Where there is a
    constraint, N makes the sum tangential to it. An `InputError` names the scheme if no
    operator is linear."""

    def __init__(self, scheme: str, field: StepField):
        fields = operator_fields(field.terms)
        operators = [one.operator(field.t(0.5), field.args) for one in fields]
        linear = [
            (operator, one.domain)
            for operator, one in zip(operators, fields, strict=True)
            if isinstance(operator, AbstractLinearOperator)
        ]
        if not linear:
            names = ", ".join(type(x).__name__ for x in operators) or type(field.terms).__name__
            raise InputError(
                f"{scheme} treats a linear operator exactly, but there is none in ({names}); "
                "add a Damping or a Diffusion to the block, or use diffrax.Euler() or Heun()."
            )
        self.operator, self.domain = linear[0]

    def nonlinear(self, field: Array, u: Array) -> Array:
        """`N(t, u)`, given the whole field `F(t, u)`."""
        return field - self.operator.apply(lambda x: x, u, self.domain)

    def exponential(self, h: Depth, u: Array) -> Array:
        """`exp(hL) u`."""
        return self.operator.flow(u, self.domain, h)

    def phi1(self, h: Depth, u: Array) -> Array:
        """`φ_1(hL) u`, `φ_1(z) = (e^z - 1)/z`."""
        return self.operator.apply(lambda x: phi1(jnp.asarray(h * x)), u, self.domain)

    def phi2(self, h: Depth, u: Array) -> Array:
        """`φ_2(hL) u`, `φ_2(z) = (φ_1(z) - 1)/z`."""
        return self.operator.apply(lambda x: phi2(jnp.asarray(h * x)), u, self.domain)


def phi1(z: Array) -> Array:
    """`(e^z - 1)/z`, 1 at 0; near 0 by its series, since the derivative of the quotient cancels
    there."""
    small = jnp.abs(z) < 0.5
    safe = jnp.where(small, 1, z)
    return jnp.where(small, _series(z, 1), jnp.expm1(safe) / safe)


def phi2(z: Array) -> Array:
    """`(φ_1(z) - 1)/z`, ½ at 0; near 0 by its series, since the quotient cancels there."""
    small = jnp.abs(z) < 0.5
    safe = jnp.where(small, 1, z)
    return jnp.where(small, _series(z, 2), (phi1(safe) - 1) / safe)


def _series(z: Array, n: int) -> Array:
    """`φ_n(z) = Σ_k z^k / (k + n)!`, to rounding where |z| < ½."""
    series, term = jnp.zeros_like(z), jnp.full_like(z, 1 / math.factorial(n))
    for k in range(n + 1, n + 16):
        series, term = series + term, term * z / k
    return series


class ExponentialEuler(AbstractOneStep):
    """Exponential Euler for `u_t = L u + N(t, u)`, L the linear operator of the block,

        u_{n+1} = e^{hL} u_n + h φ_1(hL) N(t_n, u_n),   φ_1(z) = (e^z - 1)/z.

    First order, however stiff L is; the weights of L are taken at the middle of the step.
    Reference: Cox, Matthews, J. Comput. Phys. 176 (2002).
    """

    def order(self, terms: Terms) -> int:
        return 1

    def advance(self, field: StepField, u: Array) -> Array:
        h, part = field.h, LinearPart("ExponentialEuler", field)
        nonlinear = part.nonlinear(field(0, u) / h, u)
        return (part.exponential(h, u) + h * part.phi1(h, nonlinear)).astype(u.dtype)


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
