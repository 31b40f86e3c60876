"""Schemes that cannot be, and schemes that do not fit the equation."""

import dataclasses

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest
from solvers.linear_problem import initial_state, layered_equation, tied_equation

import ide_transformer as ide


LAYERED = layered_equation()
DAMPED = tied_equation(ide.Damping(0.7), ide.Damping(0.2))
REFUSED = {
    "Matrix has no flow in closed": ide.LieTrotter(ide.ExactFlow()),
    r"none in \(Matrix, Matrix\); add a Damping or a Diffusion": ide.ExponentialEuler(),
    r"num_steps=2\): it has weights for that": ide.LearnedMultistep(2),
    "neither with a stepsize_controller nor": diffrax.HalfSolver(ide.HyperConnections(3, 2, 4)),
    r"Strang\(sub_solver=Leapfrog\(…\)\): .*earlier": ide.Strang(ide.Leapfrog()),
    "uses earlier steps, which": ide.AlgebraicallyReversible(ide.HeavyBall()),
    "is implicit; only": ide.AlgebraicallyReversible(ide.ImplicitEuler()),
    "dissipative Damping grows without bound": ide.Yoshida4(),
}


@pytest.mark.parametrize("message", REFUSED)
def test_schemes_that_do_not_fit_the_equation(message):
    equation = DAMPED if "Damping grows" in message else LAYERED
    with pytest.raises(ide.InputError, match=message):
        ide.solve(equation, initial_state(), solver=REFUSED[message])


def test_a_stage_that_is_used_again_and_a_count_are_no_memory():
    for solver in (
        ide.Strang(ide.Projected(diffrax.HalfSolver(diffrax.Bosh3()))),
        ide.Strang(diffrax.Kvaerno3()),
        ide.LearnedMultistep(3, ide.Strang(ide.ImplicitEuler())),
        ide.AlgebraicallyReversible(ide.Projected(diffrax.Tsit5())),
    ):
        solver.init(LAYERED.terms, 0.0, 1.0, initial_state(), None)


def test_a_splitting_inside_of_a_splitting_is_refused():
    for inner in (ide.LieTrotter(), ide.Projected(ide.Strang())):
        with pytest.raises(ide.InputError, match="the sub-solver splits, and a sub-step has"):
            ide.Strang(inner)


class ArgsDamping(ide.Damping):
    """Damping at a rate that `solve` is given; before it knows that, none."""

    def at(self, t, args):
        return dataclasses.replace(self, rate=self.rate * args)


def test_exact_flows_know_the_arguments_of_the_solve():
    equation = tied_equation(ArgsDamping(0.1), intervals=4)
    for solver in (ide.Strang(), ide.ETDAB2()):
        found = ide.solve(equation, initial_state(), solver=solver, args=jnp.asarray(5.0)).u1
        assert largest(found, initial_state() * np.exp(-0.1 * 5 * 4)) < 1e-12
