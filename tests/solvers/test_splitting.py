"""The splitting schemes."""

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import observed_order
from solvers.linear_problem import (
    difference,
    exact,
    final,
    initial_state,
    layered_equation,
    matrices,
    tied_equation,
)

import ide_transformer as ide


def test_strang_on_three_operators():
    """The sub-steps go up to the last operator and back."""
    assert ide.Strang().sub_steps(3) == [
        (0, 0.0, 0.5),
        (1, 0.0, 0.5),
        (2, 0.0, 1.0),
        (1, 0.5, 1.0),
        (0, 0.5, 1.0),
    ]
    parts = matrices(3)
    equation, u1 = tied_equation(*parts), exact(sum(parts))

    def error(n):
        solver = ide.Strang(diffrax.Heun())
        return difference(final(equation, solver, steps_per_interval=n), u1)

    assert abs(observed_order(error, (16, 32)) - 2) < 0.15


def test_neighbouring_sub_steps_of_a_composition_are_one():
    steps = ide.Yoshida4().sub_steps(2)
    assert [index for index, *_ in steps] == [0, 1, 0, 1, 0, 1, 0]
    outer = 1 / (2 - 2 ** (1 / 3))
    assert steps[2][1:] == pytest.approx((outer / 2, outer + (1 - 2 * outer) / 2))
    assert steps[-1][2] == 1.0


def test_the_order_of_a_composition_follows_from_its_coefficients():
    terms = layered_equation().terms
    assert ide.Composition(coefficients=(0.5, 0.5)).order(terms) == 2
    for named in (ide.Yoshida4(), ide.Suzuki4()):
        assert sum(named.coefficients) == pytest.approx(1)
        assert ide.Composition(coefficients=named.coefficients).order(terms) == 4
        assert named.order(terms) == 4
    assert len(ide.Suzuki4().coefficients) == 5
    assert min(ide.Suzuki4().coefficients) > min(ide.Yoshida4().coefficients)


def test_splittings_use_the_flow_of_an_operator_that_knows_it():
    """Damping alone is solved exactly, whatever the step."""
    equation = tied_equation(ide.Damping(0.7))
    expected = np.exp(-1.4) * np.asarray(initial_state())
    for solver in (ide.LieTrotter(), ide.Strang(diffrax.Euler()), ide.ParallelSplitting()):
        assert difference(final(equation, solver), expected) < 1e-14
    assert difference(final(equation, diffrax.Euler()), expected) > 1e-2


def test_a_flow_of_one_part_splits_from_the_others():
    first, second = matrices(2)
    u1 = final(tied_equation(first, second, ide.Damping(0.7)), ide.LieTrotter())
    u = np.asarray(initial_state())
    for _ in range(2):
        u = u + u @ first
        u = u + u @ second
        u = np.exp(-0.7) * u
    assert difference(u1, u) < 1e-13


def test_parallel_splitting_with_euler_is_unsplit_euler():
    equation = layered_equation()
    euler = final(equation, diffrax.Euler())
    assert difference(final(equation, ide.ParallelSplitting()), euler) < 1e-13


def test_the_paper_halves_the_rate_of_a_single_feature_integral():
    """As printed and with J = 1 it converges, but to an equation with half the integral."""
    first, second = matrices(2)

    def solution(integral, solver, steps):
        equation = tied_equation(first, integral, constraint=ide.Sphere())
        return final(equation, solver, steps)

    def exact_solution(integral):
        return solution(integral, ide.Projected(ide.RK4()), 24)

    printed = [solution(second, ide.PaperSplitting(), n) for n in (64, 128)]
    half = exact_solution(0.5 * second)
    errors = [difference(u1, half) for u1 in printed]
    assert abs(np.log2(errors[0] / errors[1]) - 1) < 0.15
    assert difference(printed[1], exact_solution(second)) > 10 * errors[1]


@pytest.mark.parametrize("stiff", [1e-2, 1e2])
def test_strang_with_a_stiff_flow_is_of_first_order(stiff):
    """The steady state of u' = g - λu is (h/2) coth(λh/2) g, where g/λ is right."""
    u0, horizon = jnp.ones((1, 2)), 4.0
    rate = stiff * 16 / horizon
    operators = (ide.Injection(1.0, u0), ide.Damping(rate))
    domain = ide.TokenDomain.uniform(1)
    equation = ide.Equation(ide.Tied(operators, 1, horizon), ide.Free(), domain)
    decayed = np.exp(-rate * horizon)
    expected = decayed + (1 - decayed) / rate

    def error(solver, steps):
        u1 = ide.solve(equation, u0, solver=solver, steps_per_interval=steps).u1
        return np.abs(u1 / expected - 1).max()

    order = observed_order(lambda n: error(ide.Strang(), n), [4, 8, 16])
    assert order == pytest.approx(2 if stiff < 1 else 1, abs=0.15)
    assert error(ide.ETDAB2(), 4) < 1e-12
    if stiff > 1:
        assert error(ide.Strang(), 16) == pytest.approx(stiff / 2 / np.tanh(stiff / 2) - 1)
