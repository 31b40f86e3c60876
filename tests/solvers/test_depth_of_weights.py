"""At which depths schemes read the weights, and what operators are told of it."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOKENS, WIDTH, drawn, largest, make_block, make_equation, random_state

import ide_transformer as ide
from ide_transformer.solvers import count_evaluations


class ArgsDamping(ide.AbstractLinearOperator):
    """Damping at a rate that `solve` is given; before it knows that, none."""

    rate: jax.Array

    dissipative = True
    pointwise = True
    configurable = False

    def at(self, t, args):
        return dataclasses.replace(self, rate=self.rate * args)

    def apply(self, function, u, domain):
        return function(-self.rate) * u


@pytest.mark.parametrize(
    "solver",
    [
        ide.LieTrotter(),
        ide.Strang(),
        ide.ExponentialEuler(),
        ide.ETDAB2(),
        ide.LieTrotter(diffrax.Heun()),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_exact_flows_know_the_arguments_of_the_solve(solver):
    control = ide.Tied((ArgsDamping(jnp.asarray(0.1)),), 4)
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(TOKENS))
    u0 = random_state()
    found = ide.solve(equation, u0, solver=solver, args=jnp.asarray(5.0)).u1
    assert largest(found, u0 * np.exp(-0.1 * 5 * 4)) < 1e-12


def test_parallel_sub_steps_read_the_weights_of_their_step():
    block = make_block(jax.random.key(0))
    for solver in (diffrax.Euler(), diffrax.Heun()):
        cost = count_evaluations(ide.ParallelSplitting(solver), block, WIDTH)
        assert cost is not None and max(cost.fractions) <= 1


@pytest.mark.heavy
def test_parallel_splitting_converges_where_weights_are_smooth():
    equation = make_equation(ide.Chebyshev, intervals=4)
    u0, tight = random_state(), {"solver": diffrax.Dopri8(), "steps_per_interval": 4}
    exact = ide.solve(equation, u0, **tight).u1
    errors = [
        largest(
            ide.solve(
                equation,
                u0,
                solver=ide.ParallelSplitting(diffrax.Heun()),
                steps_per_interval=steps,
            ).u1,
            exact,
        )
        for steps in (16, 32)
    ]
    assert 1.7 < errors[0] / errors[1] < 2.3


def test_blocks_tell_their_operators_the_depth_of_the_layer():
    equation = make_equation(intervals=3)

    def scaled(block):
        return tuple(map(ide.LayerNormScaling, block))

    blocks = eqx.filter_vmap(scaled)(equation.control.blocks)
    equation = ide.Equation(ide.PiecewiseConstant(blocks), ide.Free(), equation.domain)
    u0 = random_state()
    layers = ide.solve(equation, u0, solver=ide.LieTrotter()).u1
    residual = ide.solve(equation, u0, solver=ide.Residual(diffrax.Euler())).u1
    assert largest(layers, residual) < 1e-12


@pytest.mark.parametrize(
    "solver",
    [ide.AdamsBashforth(), ide.Residual(diffrax.Euler()), ide.LieTrotter()],
    ids=lambda solver: type(solver).__name__,
)
def test_a_state_in_single_precision_stays_so(solver):
    """Also where JAX computes in double precision and the weights are so."""
    key, value = drawn((2, WIDTH // 2), 1), drawn((2,), 2)
    control = ide.Tied((ide.DeltaRule(key, value),), 3)
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(TOKENS))
    u0 = random_state().astype(jnp.float32)
    assert ide.solve(equation, u0, solver=solver).u1.dtype == jnp.float32
