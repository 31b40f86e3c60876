"""Exponential integrators."""

import math
from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array

from ..equation import AbstractLinearOperator, operator_fields
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
                "add a Damping or a Diffusion to the block."
            )
        (self.operator, self.domain), self.h = linear[0], field.h

    def nonlinear(self, u: Array, rate: Array) -> Array:
        """`N(t, u)`, given the whole field `F(t, u)`."""
        return rate.astype(u.dtype) - self.operator.apply(lambda x: x, u, self.domain)

    def phi(self, n: Literal[1, 2], u: Array) -> Array:
        """`h φ_n(hL) u`."""
        h = jnp.asarray(self.h)
        return h * self.operator.apply(lambda x: phi(n, h * x), u, self.domain)

    def euler(self, u: Array, nonlinear: Array) -> Array:
        """The state after a step of exponential Euler, `e^{hL} u + h φ_1(hL) N`."""
        decayed = self.operator.flow(u, self.domain, self.h)
        return (decayed + self.phi(1, nonlinear)).astype(u.dtype)


def phi(n: Literal[1, 2], z: Array) -> Array:
    """`φ_1(z) = (e^z - 1)/z` or `φ_2(z) = (φ_1(z) - 1)/z`; near 0 by the series
    `φ_n(z) = Σ_k z^k / (k + n)!`, since the quotients and their derivatives cancel there."""
    small = jnp.abs(z) < 0.5
    safe = jnp.where(small, 1, z)
    quotient = (jnp.expm1(safe) if n == 1 else phi(1, safe) - 1) / safe
    series, term = jnp.zeros_like(z), jnp.full_like(z, 1 / math.factorial(n))
    for k in range(n + 1, n + 16):
        series, term = series + term, term * z / k
    return jnp.where(small, series, quotient)


class ExponentialEuler(AbstractOneStep):
    """Exponential Euler for `u_t = L u + N(t, u)`, L the linear operator of the block,

        u_{n+1} = e^{hL} u_n + h φ_1(hL) N(t_n, u_n),   φ_1(z) = (e^z - 1)/z.

    First order, however stiff L is; the weights of L are taken at the middle of the step.
    Reference: Cox, Matthews, J. Comput. Phys. 176 (2002).
    """

    def order(self, terms: Terms) -> int:
        return 1

    def advance(self, field: StepField, u: Array) -> Array:
        part = LinearPart("ExponentialEuler", field)
        return part.euler(u, part.nonlinear(u, field(0, u) / field.h))


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
        part = LinearPart("ETDAB2", field)
        nonlinear = part.nonlinear(u, increment / field.h)
        euler = part.euler(u, nonlinear)
        change = part.nonlinear(euler, field(1, euler) / field.h) - nonlinear
        return euler + part.phi(2, change)

    def next_step(
        self, field: StepField, u: Array, increment: Array, history: History
    ) -> Array:
        part, last = LinearPart("ETDAB2", field), history.lengths[0]
        nonlinear = part.nonlinear(u, increment / field.h)
        # With the L of this step, so that a change of L does not look like one of N.
        change = nonlinear - part.nonlinear(*history.samples[0])
        return part.euler(u, nonlinear) + part.phi(2, change * (field.h / last))
