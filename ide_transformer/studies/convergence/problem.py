"""The equations on which schemes are measured."""

import functools as ft
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
from jaxtyping import Array

from ... import equation as eq
from ...integration import Direct, Solution, solve


FEATURES = 8
_TOKENS, _INTERVALS = 4, 3

CONTROLS: dict[str, type] = {
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
    make: Any = CONTROLS[case.control]
    constraint = CONSTRAINTS[case.constraint]
    block = _block(case.block, case.constraint != "free")
    theta: eq.AbstractControl = make.build(block, _INTERVALS, key=jax.random.key(1))
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
