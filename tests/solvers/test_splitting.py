"""The splitting schemes; their published blocks are tested in tests/published/."""

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest, observed_order
from solvers.linear_problem import (
    WIDTH,
    Matrix,
    exact,
    final,
    initial_state,
    matrices,
    tied_equation,
)

import ide_transformer as ide
from ide_transformer.solvers import count_evaluations


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
    order = observed_order(
        lambda n: largest(final(equation, ide.Strang(), steps_per_interval=n), u1), (16, 32)
    )
    assert abs(order - 2) < 0.15


def test_compositions():
    """Neighbouring sub-steps of one operator are one; the coefficients give the order."""
    steps, outer = ide.Yoshida4().sub_steps(2), 1 / (2 - 2 ** (1 / 3))
    assert [index for index, *_ in steps] == [0, 1, 0, 1, 0, 1, 0]
    assert steps[2][1:] == pytest.approx((outer / 2, outer + (1 - 2 * outer) / 2))
    assert steps[-1][2] == 1.0
    terms = tied_equation(*matrices(2)).terms
    suzuki, yoshida = (x.coefficients for x in (ide.Suzuki4(), ide.Yoshida4()))
    for coefficients, order in (((0.5, 0.5), 2), (suzuki, 4), (yoshida, 4), ((0.2, 0.8), 2)):
        assert ide.Composition(coefficients=coefficients).order(terms) == order
    assert len(suzuki) == 5 and min(suzuki) > min(yoshida)
    # A triple jump of one of order p cancels h^(p+1).
    for p in (4, 6):
        outer = 1 / (2 - 2 ** (1 / (p + 1)))
        yoshida = tuple(jump * x for jump in (outer, 1 - 2 * outer, outer) for x in yoshida)
        assert ide.Composition(coefficients=yoshida).splitting_order == p + 2


class Nilpotent(Matrix, ide.AbstractExactOperator):
    """A matrix whose square is zero, so that the flow is `u + h u M`."""

    dissipative = False

    def flow(self, u, domain, h):
        return u + h * u @ self.matrix


def test_a_composition_of_order_six():
    """Solution A of Yoshida (1990), with 15 published digits."""
    outer = 0.784513610477560, 0.235573213359357, -1.17767998417887
    coefficients = (*outer, 1 - 2 * sum(outer), *reversed(outer))
    composition = ide.Composition(ide.ExactFlow(), coefficients)
    corner = np.pad(matrices(1)[0][:2, :2], ((0, 2), (2, 0)))
    equation = tied_equation(*(Nilpotent(jnp.asarray(x)) for x in (corner, corner.T)))
    assert composition.order(equation.terms) == 6
    u1 = exact(corner + corner.T)
    order = observed_order(lambda n: largest(final(equation, composition, n), u1), (2, 4, 8))
    assert abs(order - 6) < 0.15
    with pytest.raises(ide.InputError, match="order 3 to about 5 digits"):
        ide.Composition(coefficients=(1.3512, -1.7024, 1.3512))


class Mean(ide.AbstractSplitting):
    """The mean of Lie–Trotter in both orders."""

    sub_solver: diffrax.AbstractSolver = diffrax.Heun()
    splitting_order = 2

    def flows(self, flow, number, u):
        forth, back = flow(1, 0.0, 1.0, flow(0, 0.0, 1.0, u)), flow(1, 0.0, 1.0, u)
        return (forth + flow(0, 0.0, 1.0, back)) / 2, None


def test_a_mean_ends_on_the_constraint_at_its_order():
    equation = tied_equation(*matrices(2), constraint=ide.Sphere())
    (first, second), near = (
        [final(equation, solver, n) for n in steps]
        for solver, steps in ((Mean(), (16, 32)), (ide.RK4(), (64,)))
    )
    assert largest(second.mean(-1), 0) < 1e-14 and largest(second.std(-1), 1) < 1e-14
    errors = [largest(u1, near[0]) for u1 in (first, second)]
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.15


def test_a_splitting_inside_of_a_splitting_is_refused():
    for inner in (ide.LieTrotter(), ide.Projected(ide.Strang())):
        with pytest.raises(ide.InputError, match="the sub-solver splits, and a sub-step has"):
            ide.Strang(inner)


def test_a_state_of_several_arrays():
    """Störmer and Verlet's method for a pendulum, written out, from (q, p)."""
    drift, kick = (
        lambda t, y, args: (y[1], 0 * y[1]),
        lambda t, y, args: (0 * y[0], -jnp.sin(y[0])),
    )
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ODETerm(kick))
    state = jnp.asarray(1.0), jnp.asarray(0.5)
    found = diffrax.diffeqsolve(terms, ide.Strang(diffrax.Euler()), 0, 1, 1, state).ys
    q = 1.0 + 0.5 / 2
    p = 0.5 - np.sin(q)
    assert largest(jnp.concatenate(found), np.array([q + p / 2, p])) < 1e-14


def test_a_flow_in_closed_form_takes_the_place_of_the_sub_solver():
    (first, second), u = matrices(2), np.asarray(initial_state())
    damped = np.exp(-1.4) * u
    for _ in range(2):
        for field in (first, second):
            u = u + u @ field
        u = np.exp(-0.7) * u
    u1 = final(tied_equation(first, second, ide.Damping(0.7)), ide.LieTrotter())
    assert largest(u1, u) < 1e-13
    alone = tied_equation(ide.Damping(0.7))
    for solver in (ide.Strang(diffrax.Euler()), ide.ParallelSplitting()):
        assert largest(final(alone, solver), damped) < 1e-14
    assert largest(final(alone, diffrax.Euler()), damped) > 1e-2


def test_parallel_sub_steps_read_the_weights_of_their_step():
    block = tied_equation(*matrices(2)).control.block
    cost = count_evaluations(ide.ParallelSplitting(diffrax.Heun()), block, WIDTH)
    assert cost is not None and max(cost.fractions) <= 1


def test_the_paper_halves_the_rate_of_a_single_feature_integral():
    """As printed and with J = 1 it converges, but to an equation with half the integral."""
    first, second = matrices(2)

    def solution(integral, solver, steps):
        equation = tied_equation(first, integral, constraint=ide.Sphere())
        return final(equation, solver, steps)

    half, whole = (solution(x * second, ide.RK4(), 24) for x in (0.5, 1.0))
    errors = [largest(solution(second, ide.PaperSplitting(), n), half) for n in (64, 128)]
    assert abs(np.log2(errors[0] / errors[1]) - 1) < 0.15
    assert largest(half, whole) > 10 * errors[1]


def test_strang_with_a_stiff_flow_is_of_first_order():
    """The steady state of u' = g - λu is (h/2) coth(λh/2) g, where g/λ is right."""
    u0, horizon = jnp.ones((3, 4)), 4.0

    def error(solver, steps, rate):
        operators = (ide.Injection(1.0, u0), ide.Damping(rate))
        control = ide.Tied(operators, 1, horizon)
        equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(3))
        decayed = np.exp(-rate * horizon)
        start = decayed * np.asarray(initial_state())
        return np.abs((final(equation, solver, steps) - start) * rate / (1 - decayed) - 1).max()

    for stiff in (1e-2, 1e2):
        rate = stiff * 16 / horizon
        order = observed_order(lambda n, r=rate: error(ide.Strang(), n, r), [4, 8, 16])
        assert order == pytest.approx(2 if stiff < 1 else 1, abs=0.15)
        assert error(ide.ETDAB2(), 4, rate) < 1e-12
    assert error(ide.Strang(), 16, rate) == pytest.approx(stiff / 2 / np.tanh(stiff / 2) - 1)
