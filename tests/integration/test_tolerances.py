"""The error of adaptive solves follows the tolerance."""

import functools as ft

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first, largest, make_equation, random_state

import ide_transformer as ide


# Over four decades, in which steps are chosen by the tolerance and not by the intervals.
TOLERANCES = (1e-3, 1e-5, 1e-7)
TIGHTER = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
EQUATION, U0 = make_equation(intervals=2, std=0.3), random_state()


@ft.cache
def exact_solution():
    return ide.solve(EQUATION, U0, solver=diffrax.Dopri8(), steps_per_interval=64).u1


def slope_of_error(solver, tolerances, **options):
    """The slope of error against tolerance, on logarithmic axes."""
    exact = exact_solution()

    @jax.jit
    def error(tolerance):
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance, **options)
        solution = ide.solve(
            EQUATION,
            U0,
            solver=solver,
            stepsize_controller=controller,
            max_steps=4096,
            throw=False,
        )
        return jnp.sqrt(jnp.mean((solution.u1 - exact) ** 2)), solution.succeeded

    errors = []
    for tolerance in tolerances:
        value, succeeded = error(tolerance)
        assert succeeded
        errors.append(float(value))
    return np.polyfit(np.log(tolerances), np.log(errors), 1)[0]


@pytest.mark.parametrize(
    ("solver", "tolerances"),
    fast_first(
        0,
        [
            (diffrax.Tsit5(), TIGHTER),
            (diffrax.Bosh3(), TOLERANCES),
            (diffrax.Dopri5(), TIGHTER),
        ],
        heavy=1,
    ),
    ids=repr,
)
def test_the_error_of_embedded_pairs_follows_the_tolerance(solver, tolerances):
    assert abs(slope_of_error(solver, tolerances) - 1) < 0.2


@pytest.mark.heavy
def test_the_error_of_the_embedded_splitting_follows_the_tolerance():
    """The estimate is of order h² a step, the error of the solution of order h² in all."""
    assert abs(slope_of_error(ide.LieStrang(ide.RK4()), TOLERANCES) - 1) < 0.2


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("solver", "order"),
    fast_first(0, [(ide.LieTrotter(), 1), (ide.Strang(), 2), (ide.RK4(), 4)], heavy=1),
    ids=repr,
)
def test_step_doubling_makes_any_scheme_adaptive(solver, order):
    """It controls the error of a step, of order p + 1; that in all is of order p."""
    found = slope_of_error(diffrax.HalfSolver(solver), (1e-3, 1e-4, 1e-5))
    assert abs(found - order / (order + 1)) < 0.2


@pytest.mark.thorough
@pytest.mark.heavy
def test_step_doubling_on_a_constraint():
    constraint, solver = ide.Sphere(), ide.Projected(ide.Strang())
    equation = make_equation(intervals=2, constraint=constraint)
    u0 = constraint.project(random_state())
    exact = ide.solve(equation, u0, solver=solver, steps_per_interval=2048).u1
    errors = [
        largest(
            ide.solve(
                equation,
                u0,
                solver=diffrax.HalfSolver(solver),
                stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
                max_steps=4096,
            ).u1,
            exact,
        )
        for tolerance in (1e-2, 1e-4)
    ]
    # Errors of a first-order scheme add up over as many steps as the root of the tolerance.
    assert errors[1] < errors[0] / 5
