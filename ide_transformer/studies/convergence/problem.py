"""The equations on which schemes are measured, and the limits of schemes as h → 0, each found
by an eighth-order method."""

import functools as ft
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ... import equation as eq
from ...integration import Direct, Solution, solve
from ...solvers import AbstractMomentum, Projected, Residual, Velocity


FEATURES = 8
_TOKENS, _INTERVALS = 4, 3

CONTROLS: dict[str, Any] = {
    "chebyshev": eq.Chebyshev,
    "fourier": eq.Fourier,
    "hypernetwork": eq.Hypernetwork,
    "piecewise_linear": eq.PiecewiseLinear,
    "piecewise_constant": eq.PiecewiseConstant,
}
CONSTRAINTS: dict[str, eq.AbstractConstraint] = {
    "free": eq.Free(),
    "sphere": eq.Sphere(),
    "rms_sphere": eq.RMSSphere(),
}


class Case(NamedTuple):
    """The names of an equation: its operators (`transformer`, `damped` or `paper`), its control
    and its constraint."""

    block: str
    control: str
    constraint: str


@ft.cache
def problem(case: Case) -> tuple[eq.Equation, Array]:
    """The equation, and its initial state on the constraint."""
    constraint = CONSTRAINTS[case.constraint]
    block = _block(case.block, case.constraint != "free")
    theta = CONTROLS[case.control].build(block, _INTERVALS, key=jax.random.key(1))
    equation = eq.Equation(theta, constraint, eq.TokenDomain.uniform(_TOKENS))
    u0 = jax.random.normal(jax.random.key(2), (_TOKENS, FEATURES))
    return equation, constraint.project(u0)


def run(case: Case, solver: diffrax.AbstractSolver, steps: int) -> Solution:
    """The solution with so many steps in each interval."""
    equation, u0 = problem(case)
    return solve(equation, u0, solver=solver, steps_per_interval=steps, gradient=Direct())


def _block(name: str, constrained: bool) -> Callable:
    """A maker of blocks. On a constraint the operators do not normalise the state."""
    norm = eq.Free() if constrained else eq.LayerNorm(eps=1e-5)

    def make(key):
        keys = jax.random.split(key, 4)
        attention = eq.Attention(FEATURES, 2, key=keys[0], normalization=norm, std=0.25)
        if name == "paper":
            first, second = (
                eq.FeatureIntegral(FEATURES, key=k, normalization=norm, std=0.2)
                for k in keys[1:3]
            )
            return attention, first, second
        feed_forward = eq.FeedForward(FEATURES, key=keys[1], normalization=norm, std=0.2)
        if name == "damped":
            return attention, feed_forward, eq.Damping(0.5 + jax.random.uniform(keys[3], (8,)))
        return attention, feed_forward

    return make


def equation_limit(solver: Any, case: Case) -> Array:
    """The solution of the equation itself."""
    return _tight(diffrax.Dopri8(), case)


def block_limit(solver: Residual | Velocity, case: Case) -> Array:
    """The solution of the equation whose field is made of the blocks of a scheme."""
    return _tight(eqx.tree_at(lambda s: s.solver, solver, diffrax.Dopri8()), case)


def momentum_limit(solver: AbstractMomentum, case: Case) -> Array:
    """The limit of a scheme with momentum,

        u_t = k v,   v_t = -k r(t) v + g(t) Σ_i A_i(u),

    k the number of operators, with r and g read off its coefficients over a tiny step. On a
    constraint u moves with the tangential part of k v.
    """
    equation, u0 = problem(case)
    number, tiny = equation.num_operators, 1e-7
    state = (u0, jnp.zeros_like(u0))
    for index in range(equation.control.num_intervals):
        terms = equation.terms_of(index)
        (field, *_), raw = eq.operator_fields(terms), eq.without_constraint(terms)

        def rates(t, state, args, field=field, raw=raw):
            u, v = state
            kick = solver.kick(0, t, t + tiny)
            friction, gain = (1 - kick.damping) / tiny, kick.strength / tiny
            force = raw.vf_prod(t, u, None, raw.contr(0.0, 1.0))
            drift = field.constraint(t).tangent(u, number * v)
            return drift, gain * force - number * friction * v

        term, t0, h = diffrax.ODETerm(rates), float(index), 1 / 48
        ends = diffrax.diffeqsolve(term, diffrax.Dopri8(), t0, t0 + 1, h, state).ys
        state = jax.tree.map(lambda x: x[0], ends)
    return state[0]


@ft.cache
def _tight(solver: diffrax.AbstractSolver, case: Case) -> Array:
    return run(case, Projected(solver), 48).u1
