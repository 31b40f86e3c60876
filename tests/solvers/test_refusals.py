"""Schemes that cannot be, and schemes that do not fit the equation."""

import diffrax
import jax.numpy as jnp
import pytest
from solvers.linear_problem import initial_state, layered_equation, tied_equation

import ide_transformer as ide


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ide.Composition(coefficients=(0.3, 0.3)), "must sum to 1"),
        (lambda: ide.LieTrotter(ide.Strang()), "cannot be split again"),
        (lambda: ide.AdamsBashforth(4), "steps should be 2 or 3"),
        (lambda: ide.Nesterov(momentum=1.0), r"momentum=1.*must lie in \[0, 1\)"),
        (lambda: ide.HeavyBall(momentum=[0.5, -0.1]), r"momentum=\[ 0.5, -0.1\]"),
        (lambda: ide.Nesterov(gain=0.0), "gain=0.*must be positive"),
        (lambda: ide.Nesterov(momentum=[[[0.5]]]), "one for each operator"),
    ],
)
def test_schemes_that_cannot_be(make, message):
    with pytest.raises(ide.InputError, match=message):
        make()


LAYERED = layered_equation()


@pytest.mark.parametrize(
    ("solver", "equation", "message"),
    [
        (ide.LieTrotter(ide.ExactFlow()), LAYERED, "Matrix has no flow in closed"),
        (
            ide.Yoshida4(),
            tied_equation(ide.Damping(0.7), ide.Damping(0.2)),
            "dissipative Damping grows without bound",
        ),
        (ide.ExponentialEuler(), LAYERED, r"none in \(Matrix, Matrix\)"),
        (ide.ETDAB2(), LAYERED, "add a Damping or a Diffusion"),
        (ide.GatedRK2(5), LAYERED, r"GatedRK2\(features=5\): the state has 4"),
        (
            ide.PaperSplitting(),
            tied_equation(ide.Damping(1.0)),
            "PaperSplitting needs the terms of an equation whose block",
        ),
        (
            diffrax.Euler(),
            tied_equation(ide.Relaxation(1.0)),
            r"Relaxation has no source f; wrap the control",
        ),
    ],
    ids=lambda x: type(x).__name__,
)
def test_schemes_that_do_not_fit_the_equation(solver, equation, message):
    with pytest.raises(ide.InputError, match=message):
        ide.solve(equation, initial_state(), solver=solver)


TERM = diffrax.ODETerm(lambda t, y, args: -y)


@pytest.mark.parametrize("solver", [ide.LieTrotter(), ide.HeavyBall()], ids=repr)
def test_splitting_needs_a_sum(solver):
    with pytest.raises(ide.InputError, match="splits a sum of operators"):
        solver.init(TERM, 0.0, 1.0, jnp.ones(3), None)


def test_projected_needs_an_equation():
    with pytest.raises(ide.InputError, match="terms of an Equation"):
        diffrax.diffeqsolve(TERM, ide.Projected(diffrax.Euler()), 0.0, 1.0, 0.1, jnp.ones(3))
