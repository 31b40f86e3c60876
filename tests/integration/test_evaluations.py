"""Field evaluations, counted ahead or while a solve runs."""

import diffrax
import pytest
from helpers import WIDTH, make_equation, random_state

import ide_transformer as ide
from ide_transformer.solvers import count_evaluations


EQUATION, U0 = make_equation(), random_state()


@pytest.mark.parametrize(
    ("solver", "first", "following"),
    [
        (diffrax.Euler(), 1, 1),
        (diffrax.Heun(), 2, 2),
        (diffrax.Tsit5(), 7, 6),
        (ide.RK4(), 4, 4),
        (ide.LieTrotter(), 1, 1),
        (ide.Strang(diffrax.Euler()), 1.5, 1.5),
        (ide.Strang(diffrax.Heun()), 3, 3),
        (ide.Strang(ide.Projected(diffrax.Heun())), 3, 3),
        (diffrax.HalfSolver(ide.LieTrotter()), 3, 3),
        (ide.LieStrang(diffrax.Heun()), 5, 5),
        (ide.ParallelSplitting(), 1, 1),
        # Seven sub-steps of four stages on two operators.
        pytest.param(ide.Yoshida4(), 14, 14, marks=pytest.mark.heavy),
        (ide.Residual(ide.RK4()), 4, 4),
        (ide.AdamsBashforth(3), 2, 1),
        (ide.Leapfrog(), 1, 1),
        (ide.Nesterov(), 1, 1),
    ],
    ids=repr,
)
def test_field_evaluations(solver, first, following):
    block = EQUATION.control(0.0)
    assert count_evaluations(solver, block, WIDTH)[:2] == (first, following)


@pytest.mark.heavy
def test_evaluations_of_implicit_schemes_are_counted_as_they_are_made():
    assert count_evaluations(ide.ImplicitMidpoint(), EQUATION.control(0.0), WIDTH) is None
    fewer, more = (
        ide.solve(EQUATION, U0, solver=ide.ImplicitMidpoint(tolerance)).stats
        for tolerance in (1e-2, 1e-10)
    )
    # At least the guess, a residual and a product with the Jacobian in each step.
    assert 9 <= float(fewer["field_evaluations"]) < float(more["field_evaluations"])


def test_field_evaluations_of_a_march():
    count = ide.solve(EQUATION, U0, solver=diffrax.Bosh3(), steps_per_interval=2)
    # Four stages where the field has just jumped, three after that.
    assert count.stats["field_evaluations"] == 3 * (4 + 3)
    assert count.stats["steps"] == count.stats["accepted"] == 6
    smooth = make_equation(ide.PiecewiseLinear)
    count = ide.solve(smooth, U0, solver=diffrax.Bosh3(), steps_per_interval=2)
    assert count.stats["field_evaluations"] == 4 + 5 * 3
