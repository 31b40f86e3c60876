"""Limits of schemes as h → 0, each found by an eighth-order method."""

import functools as ft

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...equation import operator_fields, without_constraint
from ...solvers import AbstractMomentum, Projected, Residual, Velocity
from .problem import Case, problem, run


def equation_limit(solver: diffrax.AbstractSolver, case: Case) -> Array:
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


@ft.cache
def _tight(solver: diffrax.AbstractSolver, case: Case) -> Array:
    return run(case, Projected(solver), 48).u1
