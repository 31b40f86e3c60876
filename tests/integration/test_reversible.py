"""The gradient mode of reversible schemes: what is undone, and how rounding grows."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import WIDTH, largest, make_equation, random_state

import ide_transformer as ide


U0 = random_state()
REVERSIBLE = ide.AlgebraicallyReversible
GAIN, BIAS = jnp.linspace(0.5, 2.0, WIDTH), jnp.linspace(-1.0, 1.0, WIDTH)


def value_and_gradient(equation, u0, mode, solver=REVERSIBLE(ide.LieTrotter()), **options):
    """The states asked for, and the gradient of a function of them."""

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def both(u0):
        us = ide.solve(equation, u0, solver=solver, gradient=mode, **options).us
        return jnp.sum(jnp.cos(us - 1.0)), us

    (_, us), gradient = both(u0)
    return us, gradient


def test_states_at_the_knots_from_zero_and_their_gradient():
    equation = make_equation(intervals=4, normalization=ide.Free())
    zero, saveat = jnp.zeros_like(U0), diffrax.SaveAt(ts=equation.knots)
    found, expected = (
        value_and_gradient(equation, zero, mode, saveat=saveat, throw=False)
        for mode in (ide.Reversible(), ide.Direct())
    )
    assert largest(found[0], expected[0]) < 1e-13
    assert largest(found[1], expected[1]) < 1e-12
    solver = REVERSIBLE(ide.LieTrotter())
    assert 0 < ide.rebuilding_error(equation, zero, solver=solver)[0] < 1e-12


@pytest.mark.parametrize(
    "constraint",
    [
        ide.Free(),
        ide.Sphere(GAIN, BIAS),
        ide.LayerNorm(GAIN, BIAS),
        ide.RMSSphere(GAIN, eps=1e-5),
        ide.RMSNorm(GAIN),
    ],
    ids=lambda c: type(c).__name__,
)
def test_scales_undo_a_projection(constraint):
    scales, rebuilt = there_and_back(constraint, U0)
    assert all(x.shape == (*U0.shape[:-1], 1) for x in jax.tree.leaves(scales))
    assert largest(rebuilt, U0) < 1e-13


@eqx.filter_jit
def there_and_back(constraint, u):
    scales = constraint.scales(u)
    return scales, constraint.unproject(constraint.project(u), scales)


def test_rounding_grows_on_the_way_back_as_the_coupling_says():
    equation = make_equation(intervals=48)
    good, bad = (
        np.asarray(
            ide.rebuilding_error(
                equation, U0, solver=REVERSIBLE(ide.LieTrotter(), coupling=coupling)
            )
        )
        for coupling in (0.99, 0.7)
    )
    assert good.shape == (48,) and good[0] < 1e-12
    # Of the 48 steps each multiplies by 1/0.7, which makes 3e7.
    assert 1e3 * good[0] < bad[0] and bad[-1] < 1e-14


@pytest.mark.heavy
def test_a_gradient_spoilt_by_rounding_is_an_error():
    equation, mode = make_equation(intervals=48), ide.Reversible()
    solver = REVERSIBLE(ide.LieTrotter(), coupling=0.3)
    _, gradient = value_and_gradient(equation, U0, mode, solver, throw=False)
    assert np.isnan(gradient).all()
    with pytest.raises(Exception, match="rebuilt initial state differs"):
        jax.block_until_ready(value_and_gradient(equation, U0, mode, solver))
