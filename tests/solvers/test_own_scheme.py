"""Schemes that a user writes, and the rules that every scheme of the package follows."""

import inspect

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest
from solvers.linear_problem import (
    difference,
    final,
    initial_state,
    layered_equation,
    tied_equation,
)

import ide_transformer as ide
from ide_transformer import solvers
from ide_transformer.solvers.evaluations import _count


class Heun(solvers.AbstractOneStep):
    """The example of the docstring of `AbstractOneStep`."""

    def order(self, terms):
        return 2

    def advance(self, field, u):
        first = field(0, u)
        second = field(1, u + first)
        return u + 0.5 * (first + second)


class Euler(solvers.AbstractScheme):
    """A scheme in diffrax's signature."""

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        y1 = y0 + terms.vf_prod(t0, y0, args, terms.contr(t0, t1))
        return solvers.Step.between(y0, y1)


class Counted(solvers.AbstractFieldScheme):
    """Euler's method that leaves out every second step."""

    def start(self, field, u):
        return jnp.array(0)

    def make_step(self, field, u, state, made_jump):
        return solvers.Step.between(u, u + (state % 2 == 0) * field(0, u), state=state + 1)


@pytest.mark.parametrize(
    ("own", "known"), [(Heun(), diffrax.Heun()), (Euler(), diffrax.Euler())]
)
def test_own_schemes(own, known):
    equation = layered_equation()
    u1 = ide.solve(equation, initial_state(), solver=own).u1
    assert difference(u1, final(equation, known)) < 1e-14
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y), own, 0.0, 1.0, 0.5, np.ones(2)
    )
    assert solution.ys is not None
    factor = 1 - 0.5 + (0.125 if own.order(None) == 2 else 0)
    assert difference(solution.ys[-1], np.full(2, factor**2)) < 1e-14


def test_a_scheme_carries_its_state():
    equation = tied_equation(ide.Damping(0.5), intervals=3)
    # The second of three steps does nothing.
    once = final(tied_equation(ide.Damping(0.5), intervals=2), diffrax.Euler())
    assert difference(final(equation, Counted()), once) < 1e-14


def test_the_field_over_a_step_meets_both_ends_exactly():
    t0, t1 = 0.1, 0.1 + 0.7 / 3
    field = solvers.StepField(diffrax.ODETerm(lambda t, y, args: args * t * y), t0, t1, 3.0)
    assert field.t(0) == t0
    assert field.t(1) == t1
    assert field.t(0.5) == pytest.approx((t0 + t1) / 2)
    u = jnp.ones(2)
    assert field(1, u) == pytest.approx(3 * t1 * (t1 - t0))
    assert field.increment(field.rate(1, u)) == pytest.approx(field(1, u))
    back = field.reversed()
    assert back(0, u) == pytest.approx(-field(1, u))


def test_every_scheme_says_whether_a_configuration_may_name_it():
    schemes = {
        name: x
        for name, x in vars(solvers).items()
        if inspect.isclass(x) and issubclass(x, diffrax.AbstractSolver)
    }
    hidden = {name for name, x in schemes.items() if not x.configurable}
    assert hidden == {"Projected", "MatrixFree", "ExplicitRungeKutta"}
    assert {"Yoshida4", "Residual", "SteadyState"} <= set(schemes)


def test_evaluations_are_counted_once_for_all_solves():
    equation = layered_equation()
    before = _count.cache_info()
    for _ in range(2):
        block = equation.control(0.0)
        solvers.count_evaluations(ide.Strang(ide.RK4()), block, 7)
    after = _count.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 1)
