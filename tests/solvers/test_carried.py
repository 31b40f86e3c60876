"""Schemes that carry something from step to step, and exponential ones."""

import functools as ft

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from helpers import largest
from solvers.linear_problem import (
    TOKENS,
    WIDTH,
    final,
    initial_state,
    layered_equation,
    matrices,
    tied_equation,
)

import ide_transformer as ide
from ide_transformer.solvers.multistep import phi


LAYERED = layered_equation()


def test_special_cases():
    for one, other, steps in (
        (ide.Nesterov(0.6, 0.0, 0.8), ide.HeavyBall(0.6, 0.8), 2),
        (ide.HeavyBall(0.0, 1.0), ide.LieTrotter(), 1),
        # A multistep scheme starts again where the field jumps.
        (ide.AdamsBashforth(3), diffrax.Heun(), 1),
    ):
        assert largest(final(LAYERED, one, steps), final(LAYERED, other, steps)) < 1e-13


def test_exponential_euler_makes_the_step_of_parcae():
    """`e^{-hλ} u + h φ_1(-hλ) (κ ⊙ f + A(u))`, and exact for damping and injection alone."""
    strength, rates = np.array([0.3, -0.2, 0.8, 0.0]), np.linspace(0.2, 3.0, WIDTH)
    source = np.random.default_rng(3).normal(size=(TOKENS, WIDTH))
    (matrix,), injected = matrices(1), strength * source
    sourced = ide.StableDamping(rates), ide.Injection(strength, jnp.asarray(source))
    u = start = np.asarray(initial_state())
    for _ in range(3):
        u = np.exp(-rates) * u + (1 - np.exp(-rates)) / rates * (injected + u @ matrix)
    whole = tied_equation(*sourced, matrix, intervals=3)
    assert largest(final(whole, ide.ExponentialEuler()), u) < 1e-13
    decay = np.exp(-3 * rates)
    u = decay * start + (1 - decay) / rates * injected
    for solver in (ide.ExponentialEuler(), ide.ETDAB2()):
        assert largest(final(tied_equation(*sourced, intervals=3), solver), u) < 1e-13


def test_phi_functions_and_their_derivatives_in_single_precision():
    """Against `Σ_k z^k / (k + n)!` in double precision."""
    size = np.logspace(-9, 0.9, 60)
    z, k = np.concatenate([-size, [0.0], size]).astype(np.float32), np.arange(60)
    powers = z.astype(float)[:, None] ** k
    for n in (1, 2):
        factor = 1 / scipy.special.factorial(k + n)
        slopes = jax.jit(jax.vmap(jax.value_and_grad(ft.partial(phi, n))))
        found, slope = map(np.asarray, slopes(z))
        assert found.dtype == slope.dtype == np.float32
        assert np.max(np.abs(found / (powers @ factor) - 1)) < 2e-6
        assert np.max(np.abs(slope / (powers[:, :-1] @ (k * factor)[1:]) - 1)) < 5e-6
