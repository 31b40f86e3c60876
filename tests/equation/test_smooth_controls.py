"""Controls that are smooth in depth."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import (
    block_at,
    equations_of,
    linear_block,
    small_equation,
    state,
    weight_at,
)
from helpers import largest

import ide_transformer as ide


def heavy(*case):
    return pytest.param(*case, marks=pytest.mark.heavy)


SMOOTH = [ide.Chebyshev, ide.Fourier, ide.Hypernetwork]


@pytest.mark.parametrize("control", SMOOTH)
def test_what_is_the_same_in_every_draw_does_not_vary_with_depth(control):
    theta = control.build(
        lambda key: (ide.LayerNorm(jnp.full(3, 2.0)),), 5, key=jax.random.key(0)
    )
    for t in (0.0, 1.7, 5.0):
        assert largest(block_at(theta, t)[0].gain, 2.0) < 1e-12


def test_expansions_take_the_drawn_values_at_their_nodes(key):
    keys = jax.random.split(key, 5)
    drawn = [linear_block(k)[0].inner.weight for k in keys]
    fourier = ide.Fourier.build(linear_block, 5, key=key)
    chebyshev = ide.Chebyshev.build(linear_block, 5, key=key)
    for j in range(5):
        assert largest(weight_at(fourier, float(j)), drawn[j]) < 1e-13
        node = 2.5 * (1 + np.cos(np.pi * (j + 0.5) / 5))
        assert largest(weight_at(chebyshev, node), drawn[j]) < 1e-13


@pytest.mark.parametrize(
    "control, solver",
    [
        (ide.Chebyshev, ide.LieTrotter()),
        (ide.Fourier, ide.RK4()),
        heavy(ide.Hypernetwork, ide.Projected(diffrax.Midpoint())),
        heavy(ide.Chebyshev, diffrax.Tsit5()),
    ],
    ids=repr,
)
def test_weights_evaluated_ahead_of_the_march_are_those_of_the_control(control, solver):
    equation = small_equation(control, 3)
    u0 = state()
    ahead = ide.solve(equation, u0, solver=solver).u1
    diffeqsolve = eqx.filter_jit(diffrax.diffeqsolve)
    by_hand = diffeqsolve(equation.terms, solver, 0.0, 3.0, 1.0, u0).ys[0]
    assert largest(ahead, by_hand) < 1e-12


def test_a_march_looks_smooth_weights_up():
    """The loop over layers holds no product with the basis: it was made before."""
    equation = small_equation(ide.Chebyshev, 5)

    def solve(u0):
        return ide.solve(equation, u0, solver=ide.LieTrotter(), throw=False).u1

    loops = [
        e
        for e in equations_of(jax.make_jaxpr(solve)(state()).jaxpr)
        if e.primitive.name == "scan"
    ]
    assert loops
    terms = jax.tree.leaves(eqx.filter(equation.control.coefficients, eqx.is_array))
    for loop in loops:
        inside = [
            v.aval.shape for e in equations_of(loop.params["jaxpr"].jaxpr) for v in e.invars
        ]
        assert not any(x.shape in inside for x in terms)
