"""Multistep schemes and exponential integrators."""

import abc
import functools as ft
import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ..arguments import checked
from ..equation import AbstractLinearOperator, Spectral, operator_fields
from ..errors import InputError
from .scheme import AbstractOneStep, AbstractScheme, Step, StepField, Terms


class History(eqx.Module):
    """The memory of a multistep scheme, newest step first."""

    samples: tuple[PyTree[Array], ...]
    lengths: tuple[Float[Array, ""], ...]
    # The steps since the last jump of the field, at most the length of the memory.
    num_steps: Int[Array, ""]


class AbstractMultistep(AbstractScheme):
    """A scheme that uses earlier steps and restarts where the field jumps."""

    restarts: ClassVar[bool] = True

    # The number of earlier steps that the scheme uses.
    memory_length: eqx.AbstractClassVar[int]

    def sample(self, u: Array, rate: Array) -> PyTree[Array]:
        """The memory of a step; by default the rate at its beginning."""
        return rate

    @abc.abstractmethod
    def first_step(self, field: StepField, u: Array, increment: Array) -> Array:
        """The state after a step without memory; `increment` is `field(0, u)`."""

    @abc.abstractmethod
    def next_step(
        self, field: StepField, u: Array, increment: Array, history: History
    ) -> Array:
        """The state after a step with memory."""

    def start(self, field: StepField, u: Array) -> History:
        zeros = jax.tree.map(jnp.zeros_like, self.sample(u, u))
        length = jnp.asarray(field.h, u.dtype)
        n = self.memory_length
        return History((zeros,) * n, (length,) * n, jnp.array(0))

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        num_steps = jnp.where(made_jump, 0, state.num_steps)
        history = History(state.samples, state.lengths, num_steps)
        h = jnp.asarray(field.h, u.dtype)
        increment = field(0, u)
        y1 = lax.cond(
            num_steps == 0,
            lambda: self.first_step(field, u, increment),
            lambda: self.next_step(field, u, increment, history),
        )
        state = History(
            samples=(self.sample(u, increment / h), *state.samples[:-1]),
            lengths=(h, *state.lengths[:-1]),
            num_steps=jnp.minimum(num_steps + 1, self.memory_length),
        )
        return Step.between(u, y1.astype(u.dtype), state=state)


@checked
class AdamsBashforth(AbstractMultistep):
    """The Adams–Bashforth method with two or three `steps`; for equal steps

        u_{n+1} = u_n + h (3/2 F_n - 1/2 F_{n-1}),
        u_{n+1} = u_n + h (23/12 F_n - 16/12 F_{n-1} + 5/12 F_{n-2}).

    Order `steps`, one evaluation a step. It starts, and restarts where the field jumps, with a
    step of Heun's method. So use it with a continuous control, and three steps with a smooth
    one such as `Chebyshev`. Reference: Hairer, Nørsett, Wanner, Solving Ordinary Differential
    Equations I, section III.5.
    """

    steps: Literal[2, 3] = eqx.field(static=True, default=2)

    memory_length: ClassVar[int] = 2

    def order(self, terms: Terms) -> int:
        return self.steps

    def first_step(self, field: StepField, u: Array, increment: Array) -> Array:
        return u + 0.5 * (increment + field(1, u + increment))

    def next_step(
        self, field: StepField, u: Array, increment: Array, history: History
    ) -> Array:
        # The integral of Newton's interpolation, whose third term needs two earlier rates.
        h = jnp.asarray(field.h)
        last, previous = history.lengths
        second = h * h * (h / 3 + last / 2) / (last + previous)
        second = jnp.where((history.num_steps > 1) & (self.steps == 3), second, 0)
        before, earlier = history.samples
        slope = increment / h - before
        slope_before = (before - earlier) / previous
        curvature = slope / last - slope_before
        return u + increment + 0.5 * h * h / last * slope + second * curvature


class LinearPart:
    """`u_t = L u + N(t, u)`, with L the first linear operator in the middle of the step."""

    def __init__(self, scheme: str, field: StepField):
        fields = operator_fields(field.terms)
        operators = [x.operator(field.t(0.5), field.args) for x in fields]
        linear = [
            (operator, x.domain)
            for operator, x in zip(operators, fields, strict=True)
            if isinstance(operator, AbstractLinearOperator)
        ]
        if not linear:
            names = ", ".join(type(x).__name__ for x in operators) or type(field.terms).__name__
            raise InputError(f"{scheme} needs a linear operator, got ({names}); add a Damping.")
        self.operator, self.domain = linear[0]
        self.h = field.h

    def nonlinear(self, u: Array, rate: Array) -> Array:
        """`N(t, u)`, from the rate `F(t, u)`."""
        return rate.astype(u.dtype) - self.operator.apply(lambda x: x, u, self.domain)

    def times(self, function: Spectral, u: Array) -> Array:
        """`h function(hL) u`."""
        h = jnp.asarray(self.h)
        return h * self.operator.apply(lambda x: function(h * x), u, self.domain)

    def phi(self, n: Literal[1, 2], u: Array) -> Array:
        """`h φ_n(hL) u`."""
        return self.times(ft.partial(phi, n), u)

    def euler(self, u: Array, nonlinear: Array) -> Array:
        """A step of exponential Euler, `e^{hL} u + h φ_1(hL) N`."""
        decayed = self.operator.flow(u, self.domain, self.h)
        return (decayed + self.phi(1, nonlinear)).astype(u.dtype)


def phi(n: int, z: Array) -> Array:
    """`φ_1(z) = (e^z - 1)/z` and `φ_n(z) = (φ_{n-1}(z) - 1/(n-1)!)/z`, near 0 by series."""
    small = jnp.abs(z) < 1
    safe = jnp.where(small, 1, z)
    if n == 1:
        quotient = jnp.expm1(safe) / safe
    else:
        quotient = (phi(n - 1, safe) - 1 / math.factorial(n - 1)) / safe
    series = jnp.zeros_like(z)
    term = jnp.full_like(z, 1 / math.factorial(n))
    for k in range(n + 1, n + 19):
        series = series + term
        term = term * z / k
    return jnp.where(small, series, quotient)


@checked
class ExponentialEuler(AbstractOneStep):
    """Exponential Euler for `u_t = L u + N(t, u)` with the block's linear operator L,

        u_{n+1} = e^{hL} u_n + h φ_1(hL) N(t_n, u_n),   φ_1(z) = (e^z - 1)/z.

    Order 1, also for stiff L. L has the weights of the middle of the step. Reference: Cox,
    Matthews, J. Comput. Phys. 176 (2002).
    """

    fixed_order: ClassVar[int | None] = 1

    def advance(self, field: StepField, u: Array) -> Array:
        part = LinearPart("ExponentialEuler", field)
        return part.euler(u, part.nonlinear(u, field(0, u) / field.h))


@checked
class ETDRK4(AbstractOneStep):
    """The exponential Runge–Kutta method of four stages for `u_t = L u + N(t, u)` with the
    block's linear operator L, t' the middle of the step,

        a = e^{hL/2} u_n + h/2 φ_1(hL/2) N(t_n, u_n),
        b = e^{hL/2} u_n + h/2 φ_1(hL/2) N(t', a),
        c = e^{hL/2} a + h/2 φ_1(hL/2) (2 N(t', b) - N(t_n, u_n)),
        u_{n+1} = e^{hL} u_n + h (φ_1 - 3 φ_2 + 4 φ_3)(hL) N(t_n, u_n)
            + h (2 φ_2 - 4 φ_3)(hL) (N(t', a) + N(t', b)) + h (4 φ_3 - φ_2)(hL) N(t_{n+1}, c),

    with φ_k by series near 0. Order 4. For waves that hardly decay this needs steps that turn
    them by less than about a radian; longer steps have a slope of 2.4 to 3.9. L has the weights
    of the middle of the step. Reference: Cox, Matthews, J. Comput. Phys. 176 (2002), equations
    26 to 29.
    """

    fixed_order: ClassVar[int | None] = 4

    def advance(self, field: StepField, u: Array) -> Array:
        part = LinearPart("ETDRK4", field)

        def nonlinear(share: float, v: Array) -> Array:
            v = v.astype(u.dtype)
            return part.nonlinear(v, field(share, v) / field.h)

        def half_flow(v: Array) -> Array:
            return part.operator.flow(v, part.domain, field.h / 2)

        def half_push(rate: Array) -> Array:
            return part.times(lambda z: phi(1, z / 2) / 2, rate)

        decayed = half_flow(u)
        at_u = nonlinear(0.0, u)
        a = (decayed + half_push(at_u)).astype(u.dtype)
        at_a = nonlinear(0.5, a)
        at_b = nonlinear(0.5, decayed + half_push(at_a))
        at_c = nonlinear(1.0, half_flow(a) + half_push(2 * at_b - at_u))
        u1 = part.operator.flow(u, part.domain, field.h)
        u1 += part.times(lambda z: phi(1, z) - 3 * phi(2, z) + 4 * phi(3, z), at_u)
        u1 += part.times(lambda z: 2 * phi(2, z) - 4 * phi(3, z), at_a + at_b)
        u1 += part.times(lambda z: 4 * phi(3, z) - phi(2, z), at_c)
        return u1.astype(u.dtype)


@checked
class ETDAB2(AbstractMultistep):
    """The exponential Adams–Bashforth method for `u_t = L u + N(t, u)` with the block's linear
    operator L,

        u_{n+1} = e^{hL} u_n + h φ_1(hL) N_n + h φ_2(hL) (N_n - N_{n-1}).

    Order 2. It starts, and restarts where the field jumps, with the two-stage method ETD2RK. L
    has the weights of the middle of the step. Reference: Cox, Matthews, J. Comput. Phys. 176
    (2002).
    """

    memory_length: ClassVar[int] = 1
    fixed_order: ClassVar[int | None] = 2

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
        part = LinearPart("ETDAB2", field)
        nonlinear = part.nonlinear(u, increment / field.h)
        # Both with the L of this step; otherwise a change of L would look like a change of N.
        change = nonlinear - part.nonlinear(*history.samples[0])
        return part.euler(u, nonlinear) + part.phi(2, change * (field.h / history.lengths[0]))
