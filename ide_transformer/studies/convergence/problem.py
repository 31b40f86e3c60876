"""The equations on which schemes are measured, and their solutions."""

import functools as ft
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...equation import (
    AbstractConstraint,
    AbstractControl,
    Attention,
    Chebyshev,
    Damping,
    Equation,
    FeatureIntegral,
    FeedForward,
    Fourier,
    Free,
    Hypernetwork,
    LayerNorm,
    PiecewiseConstant,
    PiecewiseLinear,
    RMSSphere,
    Sphere,
    TokenDomain,
    operator_fields,
    without_constraint,
)
from ...integration import Direct, solve
from ...solvers import AbstractMomentum, Projected, Residual, Velocity
from .registry import FEATURES


_TOKENS, _INTERVALS = 4, 3

CONTROLS: dict[str, type] = {
    "chebyshev": Chebyshev,
    "fourier": Fourier,
    "hypernetwork": Hypernetwork,
    "piecewise_linear": PiecewiseLinear,
    "piecewise_constant": PiecewiseConstant,
}
CONSTRAINTS: dict[str, AbstractConstraint] = {
    "free": Free(),
    "sphere": Sphere(),
    "rms_sphere": RMSSphere(),
}


def _block(name: str, constrained: bool) -> Callable:
    """A maker of blocks. On a constraint the operators take the state as it is."""
    norm = Free() if constrained else LayerNorm(eps=1e-5)

    def make(key):
        keys = jax.random.split(key, 4)
        attention = Attention(FEATURES, 2, key=keys[0], normalization=norm, std=0.25)
        if name == "paper":
            first, second = (
                FeatureIntegral(FEATURES, key=k, normalization=norm, std=0.2) for k in keys[1:3]
            )
            return attention, first, second
        feed_forward = FeedForward(FEATURES, key=keys[1], normalization=norm, std=0.2)
        if name == "damped":
            return attention, feed_forward, Damping(0.5 + jax.random.uniform(keys[3], (8,)))
        return attention, feed_forward

    return make


@ft.cache
def problem(block: str, control: str, constraint: str) -> tuple[Equation, Array]:
    make: Any = CONTROLS[control]
    theta: AbstractControl = make.build(
        _block(block, constraint != "free"), _INTERVALS, key=jax.random.key(1)
    )
    equation = Equation(theta, CONSTRAINTS[constraint], TokenDomain.uniform(_TOKENS))
    u0 = jax.random.normal(jax.random.key(2), (_TOKENS, FEATURES))
    return equation, CONSTRAINTS[constraint].project(u0)


def run(equation: Equation, u0: Array, solver: diffrax.AbstractSolver, steps: int):
    return solve(equation, u0, solver=solver, steps_per_interval=steps, gradient=Direct())


def reference(
    solver: diffrax.AbstractSolver, block: str, control: str, constraint: str
) -> Array:
    """The solution of what the scheme converges to, by an eighth-order method."""
    inner = solver.solver if isinstance(solver, Projected) else solver
    if isinstance(inner, AbstractMomentum):
        return _with_velocity(inner, *problem(block, control, constraint))
    if isinstance(inner, Residual | Velocity):
        return _tight(type(inner)(diffrax.Dopri8(), inner.block), block, control, constraint)
    return _tight(diffrax.Dopri8(), block, control, constraint)


@ft.cache
def _tight(solver: diffrax.AbstractSolver, block: str, control: str, constraint: str) -> Array:
    equation, u0 = problem(block, control, constraint)
    return run(equation, u0, Projected(solver), 48).u1


def _with_velocity(solver: AbstractMomentum, equation: Equation, u0: Array) -> Array:
    """The limit of a scheme with momentum,

        u_t = k v,   v_t = -k r(t) v + g(t) Σ_i A_i(u),

    k the number of operators, with r and g read off its coefficients over a tiny step. On a
    constraint u moves with the tangential part of k v.
    """
    number, tiny = equation.num_operators, 1e-7
    state = (u0, jnp.zeros_like(u0))
    for index in range(equation.control.num_intervals):
        terms = equation.terms_of(index)
        (field, *_), raw = operator_fields(terms), without_constraint(terms)

        def rates(t, state, args, field=field, raw=raw):
            u, v = state
            kick = solver.kick(0, t, t + tiny)
            friction, gain = (1 - kick.damping) / tiny, kick.strength / tiny
            force = raw.vf_prod(t, u, None, raw.contr(0.0, 1.0))
            drift = field.constraint(t).tangent(u, number * v)
            return drift, gain * force - number * friction * v

        state = diffrax.diffeqsolve(
            diffrax.ODETerm(rates),
            diffrax.Dopri8(),
            t0=float(index),
            t1=index + 1.0,
            dt0=1 / 48,
            y0=state,
            saveat=diffrax.SaveAt(t1=True),
        ).ys
        state = jax.tree.map(lambda x: x[0], state)
    return state[0]
