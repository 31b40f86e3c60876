"""Schemes that cannot be, and schemes that do not fit the equation."""

import dataclasses

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest
from solvers.linear_problem import initial_state, layered_equation, tied_equation

import ide_transformer as ide


LAYERED = layered_equation()
SPHERE = ide.Equation(LAYERED.control, ide.Sphere(), LAYERED.domain)
DAMPED = tied_equation(ide.Damping(0.7), ide.Damping(0.2))
HYPER = ide.HyperConnections(3, 2, 4)
KEY = jax.random.key(0)
SOURCED = ide.SourcedAttention(ide.Attention(4, 2, key=KEY), key=KEY)
CUT = tied_equation(SOURCED.with_source(initial_state()[:1]))


@pytest.mark.parametrize(
    ("solver", "equation", "message"),
    [
        (ide.LieTrotter(ide.ExactFlow()), LAYERED, "Matrix has no flow in closed"),
        (ide.Yoshida4(), DAMPED, "dissipative Damping grows without bound"),
        (
            ide.ExponentialEuler(),
            LAYERED,
            r"none in \(Matrix, Matrix\); add a Damping or a Diffusion",
        ),
        (ide.HeavyBall(momentum=[0.9]), LAYERED, r"shape \(1,\), for 2 operators"),
        (ide.PaperSplitting(), tied_equation(ide.Damping(1.0)), "equation whose block"),
        (diffrax.Euler(), CUT, r"SourcedAttention: the source has shape \(1, 4\)"),
        (ide.AttentionResidual(3, 2, 4), SPHERE, "the equation needs constraint=Free"),
        (ide.LearnedMultistep(2), LAYERED, r"num_steps=2\): it has weights for that"),
        (diffrax.HalfSolver(HYPER), LAYERED, "neither with a stepsize_controller nor"),
        (ide.Strang(ide.Leapfrog()), LAYERED, r"Strang\(sub_solver=Leapfrog\(…\)\): .*earlier"),
        (ide.AlgebraicallyReversible(ide.HeavyBall()), LAYERED, "uses earlier steps, which"),
        (ide.AlgebraicallyReversible(ide.ImplicitEuler()), LAYERED, "is implicit; only"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_schemes_that_do_not_fit_the_equation(solver, equation, message):
    with pytest.raises(ide.InputError, match=message):
        ide.solve(equation, initial_state(), solver=solver)


def test_a_stage_that_is_used_again_and_a_count_are_no_memory():
    for solver in (
        ide.Strang(ide.Projected(diffrax.HalfSolver(diffrax.Bosh3()))),
        ide.Strang(diffrax.Kvaerno3()),
        ide.LearnedMultistep(3, ide.Strang(ide.ImplicitEuler())),
        ide.AlgebraicallyReversible(ide.Projected(diffrax.Tsit5())),
    ):
        solver.init(LAYERED.terms, 0.0, 1.0, initial_state(), None)


def test_what_needs_the_terms_of_an_equation():
    term = diffrax.ODETerm(lambda t, y, args: -y)
    with pytest.raises(ide.InputError, match="splits a sum of operators"):
        ide.HeavyBall().init(term, 0.0, 1.0, jnp.ones(3), None)
    noise = diffrax.VirtualBrownianTree(0.0, 1.0, 0.1, (3,), KEY)
    noisy = diffrax.MultiTerm(term, diffrax.ControlTerm(lambda t, y, args: y, noise))
    with pytest.raises(ide.InputError, match="has noise, VirtualBrownianTree"):
        ide.Strang().init(noisy, 0.0, 1.0, jnp.ones(3), None)
    with pytest.raises(ide.InputError, match="terms of an Equation"):
        diffrax.diffeqsolve(term, ide.Projected(diffrax.Euler()), 0.0, 1.0, 0.1, jnp.ones(3))
    with pytest.raises(ide.InputError, match="must sum to 1"):
        ide.Composition(coefficients=(0.3, 0.3))


class ArgsDamping(ide.AbstractLinearOperator):
    """Damping at a rate that `solve` is given; before it knows that, none."""

    rate: jax.Array

    dissipative = True
    configurable = False

    def at(self, t, args):
        return dataclasses.replace(self, rate=self.rate * args)

    def apply(self, function, u, domain):
        return function(-self.rate) * u


@pytest.mark.parametrize("solver", [ide.Strang(), ide.ETDAB2()], ids=repr)
def test_exact_flows_know_the_arguments_of_the_solve(solver):
    equation = tied_equation(ArgsDamping(jnp.asarray(0.1)), intervals=4)
    found = ide.solve(equation, initial_state(), solver=solver, args=jnp.asarray(5.0)).u1
    assert largest(found, initial_state() * np.exp(-0.1 * 5 * 4)) < 1e-12
