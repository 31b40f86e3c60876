"""Schemes that carry something from step to step, a velocity or the steps before,
exponential and implicit schemes."""

import functools as ft

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import built, largest
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


@pytest.mark.parametrize(
    ("one", "other", "steps"),
    [
        (ide.Nesterov(0.6, 0.0, 0.8), ide.HeavyBall(0.6, 0.8), 2),
        (ide.HeavyBall(0.0, 1.0), ide.LieTrotter(), 1),
        # Multistep schemes start again where the field jumps.
        (ide.AdamsBashforth(3), diffrax.Heun(), 1),
        (ide.Leapfrog(), diffrax.Euler(), 1),
    ],
)
def test_special_cases(one, other, steps):
    assert largest(final(LAYERED, one, steps), final(LAYERED, other, steps)) < 1e-13


def test_coefficients_of_zero_stay_zero():
    def loss(solver):
        return jnp.sum(ide.solve(LAYERED, initial_state(), solver=solver).u1 ** 2)

    gradient = eqx.filter_jit(eqx.filter_grad(loss))
    at_zero, near = gradient(ide.Nesterov(0.0, 0.0)), gradient(ide.Nesterov(0.01, 0.01))
    for name in ("momentum", "lookahead"):
        assert getattr(at_zero, name).raw == 0
        assert abs(getattr(near, name).raw) > 1e-3


def test_a_velocity_has_a_learned_embedding_of_its_own():
    def model_of(solver):
        options = dict(control=LAYERED.control, constraint=ide.Free(), own_velocity=True)
        options |= dict(discretization=ide.Discretization(solver), key=jax.random.key(3))
        return built(lambda: ide.LanguageModel(7, 5, WIDTH, **options))

    model, tokens = model_of(ide.Nesterov(normalization=ide.LayerNorm())), jnp.arange(5)

    def loss(velocity):
        own = eqx.tree_at(lambda m: m.inputs.velocity, model, velocity)
        return jnp.sum(jnp.sin(own(tokens)))

    seen = np.abs(np.asarray(jax.jit(jax.grad(loss))(model.inputs.velocity))).max(-1)
    assert (seen[:5] > 1e-6).all() and (seen[5:] == 0).all()
    with pytest.raises(ide.InputError, match="LieTrotter has no velocity that could start"):
        model_of(ide.LieTrotter())(tokens)
    with pytest.raises(ide.InputError, match="an embedding of its own"):
        ide.CachedDecoder(model, 5)


def test_adams_bashforth_uses_the_steps_before():
    """Two steps of one layer, by hand."""
    (matrix,) = matrices(1)
    u1 = final(tied_equation(matrix, intervals=1), ide.AdamsBashforth(2), steps_per_interval=2)
    h, u0 = 0.5, np.asarray(initial_state())
    first = h * u0 @ matrix
    u = u0 + 0.5 * (first + h * (u0 + first) @ matrix)
    u = u + 1.5 * h * u @ matrix - 0.5 * first
    assert largest(u1, u) < 1e-14


STRENGTH = np.array([0.3, -0.2, 0.8, 0.0])
SOURCE = np.random.default_rng(3).normal(size=(TOKENS, WIDTH))


def injected(*operators, intervals):
    control = ide.Tied((*operators, ide.Injection(STRENGTH)), intervals)
    sourced = ide.Sourced(control, jnp.asarray(SOURCE))
    return ide.Equation(sourced, ide.Free(), ide.TokenDomain.uniform(TOKENS))


def test_exponential_euler_makes_the_step_of_parcae():
    """`e^{-hλ} u + h φ_1(-hλ) (κ ⊙ f + A(u))`, and exact for damping and injection alone."""
    rates, u, (matrix,) = np.linspace(0.2, 3.0, WIDTH), np.asarray(initial_state()), matrices(1)
    whole = injected(
        ide.StableDamping(rates), *tied_equation(matrix).control.block, intervals=3
    )
    for _ in range(3):
        rate = STRENGTH * SOURCE + u @ matrix
        u = np.exp(-rates) * u + (1 - np.exp(-rates)) / rates * rate
    assert largest(final(whole, ide.ExponentialEuler()), u) < 1e-13
    alone, decay = injected(ide.StableDamping(rates), intervals=3), np.exp(-3 * rates)
    u = decay * np.asarray(initial_state()) + (1 - decay) / rates * STRENGTH * SOURCE
    for solver in (ide.ExponentialEuler(), ide.ETDAB2()):
        assert largest(final(alone, solver), u) < 1e-13


def test_exponential_schemes_do_not_mind_stiff_damping():
    """The solution is soon at rest."""
    (matrix,), rate = matrices(1), 200.0
    operators = ide.Damping(rate), *tied_equation(matrix).control.block
    equation = injected(*operators, intervals=2)
    rest = -np.linalg.solve((matrix - rate * np.eye(WIDTH)).T, (STRENGTH * SOURCE).T).T
    for solver in (ide.ExponentialEuler(), ide.ETDAB2()):
        assert largest(final(equation, solver, 4), rest) < 1e-2 * np.abs(rest).max()
    assert not largest(final(equation, diffrax.Euler()), rest) < 1e3


def test_an_implicit_step_is_a_rational_function_of_the_matrix():
    """As is its gradient, by the implicit function theorem."""
    (m,), u = matrices(1), np.asarray(initial_state())
    equation, inverse = tied_equation(m), np.linalg.inv(np.eye(WIDTH) - m)

    @jax.jit
    @ft.partial(jax.value_and_grad, has_aux=True)
    def step(u):
        u1 = ide.single_step(ide.ImplicitEuler(), equation.terms, 0.0, 1.0, u)
        return jnp.sum(u1), u1

    (_, u1), gradient = step(initial_state())
    assert largest(u1, u @ inverse) < 1e-11
    assert largest(gradient, np.ones_like(u) @ inverse.T) < 1e-10


def test_phi_functions_and_their_derivatives_in_single_precision():
    """Against `Σ_k z^k / (k + n)!` in double precision."""
    size = np.logspace(-9, 0.9, 60, dtype=np.float32)
    z = np.concatenate([-size, [0.0], size]).astype(np.float32)
    wide = z.astype(float)[:, None]
    k = np.arange(60)
    for n in (1, 2):
        factor = np.exp(-scipy.special.gammaln(k + n + 1))
        expected = np.sum(wide**k * factor, axis=1)
        slope = np.sum(k[1:] * wide ** (k[1:] - 1) * factor[1:], axis=1)
        slopes = jax.vmap(jax.value_and_grad(ft.partial(phi, n)))
        found, found_slope = map(np.asarray, jax.jit(slopes)(z))
        assert found.dtype == found_slope.dtype == np.float32
        assert np.max(np.abs(found / expected - 1)) < 2e-6, n
        assert np.max(np.abs(found_slope / slope - 1)) < 5e-6, n


def test_stable_damping_stays_positive_under_any_update():
    operator = ide.StableDamping(0.5)
    gradient = jax.grad(lambda x: x.rate.sum())(operator)
    far = jax.tree.map(lambda x, g: x - 100 * g, operator, gradient)
    assert 0 < float(far.rate) < 1e-20
