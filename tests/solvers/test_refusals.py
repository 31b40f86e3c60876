"""Schemes that cannot be, and schemes that do not fit the equation."""

import diffrax
import jax
import jax.numpy as jnp
import pytest
from solvers.linear_problem import initial_state, layered_equation, tied_equation

import ide_transformer as ide


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ide.Composition(coefficients=(0.3, 0.3)), "must sum to 1"),
        (lambda: ide.AdamsBashforth(4), "steps should be 2 or 3"),
        (lambda: ide.Nesterov(momentum=1.0), r"momentum=1.0: momentum should be in \[0, 1\)"),
        (lambda: ide.HeavyBall(momentum=[0.5, -0.1]), r"momentum=\[0.5, -0.1\]"),
        (lambda: ide.Nesterov(gain=0.0), r"gain=0.0: gain should be in \(0, ∞\)"),
        (lambda: ide.Nesterov(momentum=[[[0.5]]]), "one for each operator"),
    ],
)
def test_schemes_that_cannot_be(make, message):
    with pytest.raises(ide.InputError, match=message):
        make()


LAYERED = layered_equation()
BIDIRECTIONAL = ide.Bidirectional(key=jax.random.key(0))


@pytest.mark.parametrize(
    ("solver", "equation", "message"),
    [
        (ide.LieTrotter(ide.ExactFlow()), LAYERED, "Matrix has no flow in closed"),
        (ide.LieTrotter(ide.Strang()), LAYERED, "Strang splits a sum of operators, but was"),
        (
            ide.Yoshida4(),
            tied_equation(ide.Damping(0.7), ide.Damping(0.2)),
            "dissipative Damping grows without bound",
        ),
        (ide.ExponentialEuler(), LAYERED, r"none in \(Matrix, Matrix\)"),
        (ide.ETDAB2(), tied_equation(*LAYERED.control(0.0)), "add a Damping or a Diffusion"),
        (
            ide.HeavyBall(momentum=[0.9]),
            LAYERED,
            r"HeavyBall: a coefficient has shape \(1,\), for 2 operators",
        ),
        (ide.Nesterov(lookahead=[0.9, 0.5, 0.1]), LAYERED, r"Nesterov: .*\(3,\)"),
        (ide.PresymplecticEuler(linear=[[0.9, 0.5, 0.1]] * 3), LAYERED, r"Euler: .*\(3, 3\)"),
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


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (ide.Strang(ide.Leapfrog()), r"Strang\(sub_solver=Leapfrog\(…\)\): .* earlier steps"),
        (ide.Yoshida4(ide.AdamsBashforth(3)), r"Yoshida4\(sub_solver=AdamsBashforth"),
        (ide.ParallelSplitting(ide.Projected(ide.Leapfrog())), "without a memory"),
        (ide.Residual(block=ide.LieTrotter(BIDIRECTIONAL)), "Bidirectional uses earlier"),
        (ide.LieTrotter(diffrax.LeapfrogMidpoint()), "LeapfrogMidpoint uses earlier"),
        (ide.LearnedMultistep(3, ide.AdamsBashforth(2)), r"example LearnedMultistep\(3, Str"),
        (ide.LearnedMultistep(3, ide.Residual(ide.Leapfrog())), "Residual uses earlier"),
        (ide.LearnedMultistep(3, ide.HeavyBall()), "HeavyBall uses earlier"),
        (ide.AlgebraicallyReversible(ide.Leapfrog()), "Leapfrog uses earlier"),
        (ide.AlgebraicallyReversible(ide.ImplicitEuler()), "ImplicitEuler is implicit; only"),
    ],
    ids=repr,
)
def test_schemes_that_would_lose_the_memory_of_another(solver, message):
    with pytest.raises(ide.InputError, match=message):
        ide.solve(LAYERED, initial_state(), solver=solver)


@pytest.mark.parametrize(
    "solver",
    [
        ide.Strang(diffrax.Tsit5()),
        ide.Strang(ide.Projected(diffrax.HalfSolver(diffrax.Bosh3()))),
        ide.Strang(diffrax.Kvaerno3()),
        ide.Strang(ide.ImplicitMidpoint()),
        ide.LearnedMultistep(3, ide.Residual(diffrax.Bosh3())),
        ide.LearnedMultistep(3, ide.Strang(ide.ImplicitEuler())),
        ide.AlgebraicallyReversible(ide.Projected(diffrax.Tsit5())),
    ],
    ids=repr,
)
def test_a_stage_that_is_used_again_and_a_count_are_no_memory(solver):
    solver.init(LAYERED.terms, 0.0, 1.0, initial_state(), None)


TERM = diffrax.ODETerm(lambda t, y, args: -y)


@pytest.mark.parametrize("solver", [ide.LieTrotter(), ide.HeavyBall()], ids=repr)
def test_splitting_needs_a_sum(solver):
    with pytest.raises(ide.InputError, match="splits a sum of operators"):
        solver.init(TERM, 0.0, 1.0, jnp.ones(3), None)


def test_projected_needs_an_equation():
    with pytest.raises(ide.InputError, match="terms of an Equation"):
        diffrax.diffeqsolve(TERM, ide.Projected(diffrax.Euler()), 0.0, 1.0, 0.1, jnp.ones(3))
