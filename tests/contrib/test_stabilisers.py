"""Noisy steps against the moments of their equation."""

import functools as ft

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.contrib import NoisySteps
from ide_transformer.errors import InputError
from tests.helpers import drawn, largest
from tests.layered_models import HELD_OUT, model_of


DECAY = 0.5


@ft.partial(jax.jit, static_argnames=("steps", "initial", "noise"))
def ends(u0, key, *, steps=1, initial=0.0, noise=0.0):
    """The state after three intervals of damping."""
    control = ide.Tied((ide.Damping(DECAY),), 3)
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(u0.shape[-2]))
    solver = NoisySteps(ide.LieTrotter(), initial, noise, key)
    return ide.solve(equation, u0, solver=solver, steps_per_interval=steps).u1


def test_noise_has_the_variance_of_its_equation():
    steps = 4
    u0 = jnp.ones((400, 25, 8))
    h = 1 / steps
    num_steps = 3 * steps
    decay = np.exp(-DECAY * 3)
    of_noise = 0.04 * h * np.sum(np.exp(-2 * DECAY * h * np.arange(num_steps)))
    end = np.asarray(ends(u0, jax.random.key(0), steps=steps, noise=0.2, initial=2.0))
    assert abs(end.mean()) < 0.01
    assert end.var() == pytest.approx(4 * decay**2 + of_noise, rel=0.03)


def test_without_a_key_there_is_no_noise_and_one_start():
    u0 = drawn((2, 3, 4), 0)
    assert largest(ends(u0, None, noise=0.2), np.exp(-DECAY * 3) * u0) < 1e-12
    end = ends(u0, None, initial=1.0)
    assert largest(end, jnp.broadcast_to(end[0, 0], u0.shape)) == 0
    assert largest(end, ends(-u0, None, initial=1.0)) == 0
    with pytest.raises(InputError, match="AdamsBashforth"):
        memory = NoisySteps(ide.AdamsBashforth(2))
        model_of("tied").with_solver(memory).solve(HELD_OUT)
