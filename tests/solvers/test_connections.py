"""Schemes with learned connections against their published blocks, written out in NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solvers.linear_problem import (
    TOKENS,
    WIDTH,
    difference,
    final,
    initial_state,
    layered_equation,
    matrices,
)

import ide_transformer as ide


LAYERS, OPERATORS, STREAMS = 3, 2, 4


@pytest.fixture(scope="module")
def layered():
    return layered_equation(OPERATORS, LAYERS)


@pytest.fixture(scope="module")
def sublayers():
    """`f(u)` of each operator of each layer, in order."""
    fields = matrices(OPERATORS, layers=LAYERS)
    return [fields[k, n] for n in range(LAYERS) for k in range(OPERATORS)]


def filled(solver, seed=5, size=0.5):
    """The scheme with random weights."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: x + size * random.normal(size=x.shape) if eqx.is_inexact_array(x) else x,
        solver,
    )


SCHEMES = {
    "learned_multistep": ide.LearnedMultistep(LAYERS),
    "attention_residual": ide.AttentionResidual(LAYERS, OPERATORS, WIDTH),
    "hyper_connections": ide.HyperConnections(LAYERS, OPERATORS, WIDTH, STREAMS),
    "doubly_stochastic": ide.DoublyStochasticConnections(LAYERS, OPERATORS, WIDTH, STREAMS),
}


def test_dense_former(layered, sublayers):
    solver = filled(SCHEMES["learned_multistep"])
    rows = np.split(np.asarray(solver.weights), np.cumsum(np.arange(2, LAYERS + 1)))
    x = [np.asarray(initial_state())]
    y = x[0]
    for layer in range(LAYERS):
        for field in sublayers[OPERATORS * layer : OPERATORS * (layer + 1)]:
            y = y + y @ field
        x.append(y)
        y = sum(a * each for a, each in zip(rows[layer], x, strict=True))
    assert difference(final(layered, solver), y) < 1e-12


def test_attention_residuals(layered, sublayers):
    solver = filled(SCHEMES["attention_residual"])
    queries = np.asarray(solver.queries).reshape(-1, WIDTH)
    values = [np.asarray(initial_state())]
    h = values[0]
    for field, query in zip(sublayers, queries, strict=True):
        values.append(h @ field)
        keys = [v / np.sqrt((v**2).mean(-1, keepdims=True) + 1e-6) for v in values]
        weights = np.exp([key @ query for key in keys])
        weights /= weights.sum(0)
        h = sum(w[:, None] * v for w, v in zip(weights, values, strict=True))
    assert difference(final(layered, solver), h) < 1e-12


def test_dynamic_hyper_connections(layered, sublayers):
    """Algorithm 2 of the paper, with layer norms without gain."""
    solver = filled(SCHEMES["hyper_connections"])
    each = [
        np.asarray(x).reshape(-1, *x.shape[2:])
        for x in (
            solver.alpha,
            solver.beta,
            solver.alpha_weight,
            solver.beta_weight,
            solver.alpha_scale,
            solver.beta_scale,
        )
    ]
    h = np.stack([np.asarray(initial_state())] * STREAMS, axis=-2)  # [tokens, n, features]
    for field, alpha, beta, w_alpha, w_beta, s_alpha, s_beta in zip(
        sublayers, *each, strict=True
    ):
        centred = h - h.mean(-1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        alphas = alpha + s_alpha * np.tanh(normal @ w_alpha)  # [tokens, n, 1 + n]
        betas = beta + s_beta * np.tanh(normal @ w_beta)  # [tokens, n]
        mixed = np.swapaxes(alphas, -1, -2) @ h  # [tokens, 1 + n, features]
        h = mixed[:, 1:] + betas[..., None] * (mixed[:, :1] @ field)
    assert difference(final(layered, solver), h.mean(-2)) < 1e-12


def test_doubly_stochastic_connections(layered, sublayers):
    solver = filled(SCHEMES["doubly_stochastic"])
    each = [np.asarray(x).reshape(-1, *x.shape[2:]) for x in (solver.bias, solver.weight)]
    scales = np.asarray(solver.scale).reshape(-1, 3)
    x = np.stack([np.asarray(initial_state())] * STREAMS, axis=-2)
    parts = np.split(np.arange(STREAMS * (STREAMS + 2)), (STREAMS, 2 * STREAMS))
    for field, bias, weight, scale in zip(sublayers, *each, scales, strict=True):
        flat = x.reshape(TOKENS, -1)
        normal = flat / np.sqrt((flat**2).mean(-1, keepdims=True) + 1e-6)
        pre, post, res = (
            s * normal @ weight[:, part] + bias[part]
            for s, part in zip(scale, parts, strict=True)
        )
        matrix = np.exp(res.reshape(TOKENS, STREAMS, STREAMS))
        for _ in range(20):
            matrix = matrix / matrix.sum(1, keepdims=True)
            matrix = matrix / matrix.sum(2, keepdims=True)
        assert np.abs(matrix.sum(1) - 1).max() < 1e-2
        read, write = 1 / (1 + np.exp(-pre)), 2 / (1 + np.exp(-post))
        out = np.einsum("tn,tnd->td", read, x) @ field
        x = matrix @ x + write[..., None] * out[:, None]
    assert difference(final(layered, solver), x.mean(1)) < 1e-12


@pytest.mark.parametrize("name", ["learned_multistep", "hyper_connections"])
def test_two_of_them_start_as_lie_trotter(layered, name):
    assert difference(final(layered, SCHEMES[name]), final(layered, ide.LieTrotter())) < 1e-13


def test_attention_residuals_start_as_the_mean_of_all_that_was_made(layered, sublayers):
    values = [np.asarray(initial_state())]
    for field in sublayers:
        values.append(np.mean(values, axis=0) @ field)
    expected = np.mean(values, axis=0)
    assert difference(final(layered, SCHEMES["attention_residual"]), expected) < 1e-13


@pytest.mark.parametrize("name", SCHEMES)
def test_their_gradients_are_those_of_finite_differences(layered, name):
    solver = filled(SCHEMES[name], size=0.1)
    weights, static = eqx.partition(solver, eqx.is_inexact_array)

    def loss(weights, gradient):
        solution = ide.solve(
            layered, initial_state(), solver=eqx.combine(weights, static), gradient=gradient
        )
        return jnp.sum(jnp.sin(solution.u1))

    recomputed, direct = (
        jax.jit(jax.grad(loss), static_argnums=1)(weights, mode)
        for mode in (ide.Recompute(), ide.Direct())
    )
    assert eqx.tree_equal(recomputed, direct, rtol=1e-12, atol=1e-14)
    along = jax.tree.map(lambda x: np.random.default_rng(x.size).normal(size=x.shape), weights)

    def at(step):
        moved = jax.tree.map(lambda w, d: w + step * d, weights, along)
        return float(loss(moved, ide.Direct()))

    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), direct, along)))
    assert float(slope) == pytest.approx((at(1e-5) - at(-1e-5)) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("name", SCHEMES)
def test_more_steps_than_there_are_weights_for_are_refused(layered, name):
    solve = ide.solve(layered, initial_state(), solver=SCHEMES[name])
    assert float(solve.stats["field_evaluations"]) == LAYERS
    with pytest.raises(
        ide.InputError, match=r"num_steps=3\): it has weights for so many steps"
    ):
        ide.solve(layered, initial_state(), solver=SCHEMES[name], steps_per_interval=2)


def bidirectional(sign):
    """The two-step method with γ of that sign at each step after the first."""
    fields = matrices(1, layers=LAYERS)[0]
    before = np.asarray(initial_state())
    u = before + before @ fields[0]
    for layer in range(1, LAYERS):
        gamma = 0.5 * sign[layer]
        before, u = (u, gamma * before + (1 - gamma) * u + (1 + gamma) * u @ fields[layer])
    return u


def test_the_bidirectional_approximation_draws_its_sign_for_each_step():
    equation = layered_equation(1, LAYERS)
    quiet = final(equation, ide.Residual(ide.Bidirectional()))
    assert difference(quiet, bidirectional([0, 0, 0])) < 1e-13
    outcomes = [bidirectional([0, first, second]) for first in (-1, 1) for second in (-1, 1)]
    seen = set()
    for seed in range(24):
        solver = ide.Residual(ide.Bidirectional(key=jax.random.key(seed)))
        u = final(equation, solver)
        (found,) = [n for n, x in enumerate(outcomes) if difference(u, x) < 1e-13]
        seen.add(found)
    assert seen == {0, 1, 2, 3}


def test_each_sample_has_a_sign_of_its_own():
    equation = layered_equation(1, LAYERS)
    solver = ide.Residual(ide.Bidirectional(key=jax.random.key(1)))
    u0 = jnp.stack([initial_state()] * 16)
    u1 = ide.solve(equation, u0, solver=solver).u1
    assert len({np.asarray(u).round(9).tobytes() for u in u1}) == 4


def test_a_model_draws_only_with_a_key():
    keys = jax.random.split(jax.random.key(0), 2)
    control = ide.PiecewiseConstant.build(
        lambda key: (ide.FeedForward(WIDTH, 8, std=0.5, key=key),), LAYERS, key=keys[0]
    )
    model = ide.LanguageModel(
        5,
        TOKENS,
        WIDTH,
        control=control,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.Residual(ide.Bidirectional())),
        key=keys[1],
    )
    tokens = jnp.array([0, 1, 2])
    plain = model.with_solver(ide.LieTrotter())
    assert model.random and not plain.random
    assert difference(model(tokens), plain(tokens)) < 1e-13
    first, again, other = (model(tokens, key=jax.random.key(n)) for n in (1, 1, 2))
    assert difference(first, again) == 0
    assert difference(first, model(tokens)) > 1e-6
    assert difference(first, other) > 1e-6 or difference(other, model(tokens)) > 1e-6
