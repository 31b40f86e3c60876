"""The stiff linear part of an equation, treated exactly."""

import math

import jax.numpy as jnp
from jaxtyping import Array

from ...equation import AbstractLinearOperator, Depth, operator_fields
from ...errors import InputError
from ..base.step import StepField


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
