"""Solves with weights as functions of a feature: their limit in the width, their gradients."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import WIDTH, fast_first, make_equation, random_state

import ide_transformer as ide


@pytest.mark.heavy
@pytest.mark.parametrize(
    "control", fast_first(0, [ide.PiecewiseConstant, ide.Chebyshev, ide.Tied], heavy=2)
)
def test_solutions_converge_in_width_with_every_control(control):
    equation = make_equation(control)

    @ft.partial(jax.jit, static_argnums=0)
    def solved(points):
        functions = ide.FunctionSpace(ide.Cosine(), WIDTH, ide.FeatureDomain(points))
        theta = ide.Functional(equation.control, functions)
        u0 = functions.features.of_values(random_state())
        found = ide.solve(
            ide.Equation(theta, ide.Free(), equation.domain), u0, solver=ide.LieTrotter()
        )
        return found.u1 @ functions.features.duals

    fine = solved(128)
    first, second = (abs(solved(points) - fine).max() for points in (32, 64))
    assert second < first / 20


@pytest.mark.heavy
def test_gradients_equal_finite_differences():
    equation = make_equation()
    functions = ide.FunctionSpace(ide.Warped(), WIDTH, ide.FeatureDomain(24, "gauss_legendre"))
    u0 = functions.features.of_values(random_state())

    @eqx.filter_jit
    def loss(control, gradient):
        found = ide.solve(
            ide.Equation(control, ide.Free(), equation.domain),
            u0,
            solver=ide.LieTrotter(),
            gradient=gradient,
        )
        return jnp.sum(jnp.sin(found.u1))

    control = ide.Functional(equation.control, functions)
    gradient_of = eqx.filter_jit(jax.grad(loss))
    grad = gradient_of(control, ide.Direct())
    recomputed = gradient_of(control, ide.Recompute())
    for a, b in zip(jax.tree.leaves(grad), jax.tree.leaves(recomputed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)
    direction = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(x.size), x.shape, x.dtype), control
    )
    slope = sum(
        jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (grad, direction)), strict=True)
    )

    def moved(size):
        there = jax.tree.map(lambda x, d: x + size * d, control, direction)
        return loss(there, ide.Direct())

    slopes = (moved(1e-6) - moved(-1e-6)) / 2e-6
    assert slope == pytest.approx(float(slopes), rel=1e-6)
