import diffrax
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOKENS, WIDTH, largest, random_state

import ide_transformer as ide


DOMAIN = ide.TokenDomain.uniform(TOKENS)


def loop_attention(operator, u, causal):
    """Attention written out token by token and head by head, in NumPy."""
    u = np.asarray(operator.normalization.project(u))
    project = {
        name: np.asarray(u @ np.asarray(getattr(operator, name).weight))
        + np.asarray(getattr(operator, name).bias)
        for name in ("query", "key", "value")
    }
    heads, shared = operator.heads, operator.key_value_heads
    size = project["query"].shape[-1] // heads
    out = np.zeros((u.shape[0], heads * size))
    for head in range(heads):
        group = head // (heads // shared)
        q = project["query"][:, head * size : (head + 1) * size]
        k = project["key"][:, group * size : (group + 1) * size]
        v = project["value"][:, group * size : (group + 1) * size]
        for x in range(u.shape[0]):
            seen = x + 1 if causal else u.shape[0]
            scores = np.array([q[x] @ k[z] for z in range(seen)]) / np.sqrt(size)
            gamma = np.exp(scores - scores.max())
            out[x, head * size : (head + 1) * size] = (gamma / gamma.sum()) @ v[:seen]
    return out @ np.asarray(operator.output.weight) + np.asarray(operator.output.bias)


@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(
    groups=st.sampled_from([(4, 4), (4, 2), (4, 1), (1, 1)]),
    causal=st.booleans(),
    normalization=st.sampled_from([ide.Free(), ide.LayerNorm(), ide.RMSNorm()]),
    seed=st.integers(0, 1000),
)
def test_attention_equals_loops(groups, causal, normalization, seed):
    heads, shared = groups
    operator = ide.Attention(
        WIDTH,
        heads,
        key_value_heads=shared,
        causal=causal,
        normalization=normalization,
        std=0.5,
        key=jax.random.key(seed),
    )
    u = random_state(seed=seed)
    expected = loop_attention(operator, u, causal)
    assert largest(operator(u, DOMAIN), expected) < 1e-12


def test_leading_axes_are_batches(key):
    u = random_state(2, 3)
    for operator in (
        ide.Attention(WIDTH, 4, key=key, positions=ide.Rotary()),
        ide.FeedForward(WIDTH, key=key),
        ide.GatedFeedForward(WIDTH, key=key),
    ):
        batched = operator(u, DOMAIN)
        one_by_one = jax.vmap(jax.vmap(lambda v, op=operator: op(v, DOMAIN)))(u)
        assert largest(batched, one_by_one) < 1e-14


def test_causality(key):
    operator = ide.Attention(WIDTH, 4, key=key, causal=True, std=0.5)
    u = random_state()
    changed = operator(u.at[4].set(9.0), DOMAIN)
    assert (changed[:4] == operator(u, DOMAIN)[:4]).all()
    assert largest(changed[4:], operator(u, DOMAIN)[4:]) > 0.1


def test_permutation_equivariance(key):
    operator = ide.Attention(WIDTH, 4, key=key, std=0.5)
    u = random_state()
    order = jnp.array([3, 1, 5, 0, 2, 4])
    assert largest(operator(u[order], DOMAIN), operator(u, DOMAIN)[order]) < 1e-14


def test_rotary_scores_depend_on_differences(key):
    operator = ide.Attention(WIDTH, 4, key=key, positions=ide.Rotary(), std=0.5)
    u = random_state()
    shifted = ide.TokenDomain(DOMAIN.points + 17.5)
    assert largest(operator(u, DOMAIN), operator(u, shifted)) < 1e-12
    order = jnp.array([3, 1, 5, 0, 2, 4])
    assert largest(operator(u[order], DOMAIN), operator(u, DOMAIN)[order]) > 1e-3


def test_rotary_turns_by_the_position():
    """Features i and i + d/2 of a head are one complex number, times exp(i x base^(-2i/d))."""
    x = random_state(width=8)[:, None, :]
    turned = ide.Rotary(base=100.0)(x, DOMAIN)
    angle = np.arange(TOKENS)[:, None, None] * 100.0 ** (-np.arange(4) / 4)
    expected = (np.asarray(x[..., :4]) + 1j * np.asarray(x[..., 4:])) * np.exp(1j * angle)
    assert largest(turned[..., :4] + 1j * turned[..., 4:], expected) < 1e-14


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (ide.relu, lambda x: np.maximum(x, 0)),
        (
            ide.gelu,
            lambda x: x * np.array([_normal_cdf(v) for v in x.ravel()]).reshape(x.shape),
        ),
        (
            ide.gelu_tanh,
            lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        ),
    ],
)
def test_feed_forward(key, activation, expected):
    operator = ide.FeedForward(WIDTH, 12, key=key, activation=activation, std=0.5)
    u = np.asarray(random_state())
    inner = u @ np.asarray(operator.inner.weight) + np.asarray(operator.inner.bias)
    out = expected(inner) @ np.asarray(operator.outer.weight) + np.asarray(operator.outer.bias)
    assert largest(operator(jnp.asarray(u), DOMAIN), out) < 1e-13


def _normal_cdf(x):
    from math import erf, sqrt

    return 0.5 * (1 + erf(x / sqrt(2)))


def test_gated_feed_forward(key):
    operator = ide.GatedFeedForward(WIDTH, key=key, std=0.5)
    u = np.asarray(random_state())
    gate = u @ np.asarray(operator.gate.weight)
    inner = u @ np.asarray(operator.inner.weight)
    out = (gate / (1 + np.exp(-gate)) * inner) @ np.asarray(operator.outer.weight)
    assert largest(operator(jnp.asarray(u), DOMAIN), out) < 1e-13


def test_dropout_is_a_function_of_its_key(key):
    inner = ide.FeedForward(WIDTH, key=key)
    u = random_state(64)
    plain = inner(u, DOMAIN)
    assert (ide.Dropout(inner, 0.25)(u, DOMAIN) == plain).all()
    dropped = ide.Dropout(inner, 0.25, key)(u, DOMAIN)
    assert (dropped == ide.Dropout(inner, 0.25, key)(u, DOMAIN)).all()
    zeros = dropped == 0
    assert abs(float(zeros.mean()) - 0.25) < 0.02
    assert largest(jnp.where(zeros, 0, dropped * 0.75), jnp.where(zeros, 0, plain)) < 1e-14


def test_heads_that_do_not_divide(key):
    with pytest.raises(ide.InputError, match="5 heads do not divide a width of 16"):
        ide.Attention(WIDTH, 5, key=key)
    with pytest.raises(ide.InputError, match="3 key-value heads do not divide 4 heads"):
        ide.Attention(WIDTH, 4, key_value_heads=3, key=key)


def test_states_of_another_width(key):
    with pytest.raises(ide.InputError, match=r"acts on 16 features.*\(6, 8\)"):
        ide.FeedForward(WIDTH, key=key)(random_state(width=8), DOMAIN)


def exact_operators():
    keys = jax.random.split(jax.random.key(5), 3)
    source = jax.random.normal(keys[0], (12, WIDTH))
    return {
        "damping": ide.Damping(jax.random.uniform(keys[1], (WIDTH,))),
        "diffusion": ide.Diffusion(0.3),
        "diffusion on a grid": ide.Diffusion(0.3, grid=(3, 4)),
        "delta rule": ide.DeltaRule(
            jax.random.normal(keys[2], (4, WIDTH // 4)), jnp.arange(4.0), jnp.array(0.7)
        ),
        "relaxation": ide.Relaxation(0.6, source),
    }


@pytest.mark.parametrize("name", exact_operators())
def test_a_flow_solves_the_equation_of_its_operator(name):
    operator, domain = exact_operators()[name], ide.TokenDomain.uniform(12)
    u0 = jax.random.normal(jax.random.key(1), (2, 12, WIDTH))
    if name == "relaxation":
        u0 = u0[0]
    equation = ide.Equation(ide.Tied((operator,), 1), ide.Free(), domain)
    exact = ide.solve(equation, u0, solver=diffrax.Dopri8(), steps_per_interval=20).u1
    assert largest(operator.flow(u0, domain, 1.0), exact) < 1e-11
    # It is a group: two halves make a whole.
    half = operator.flow(operator.flow(u0, domain, 0.5), domain, 0.5)
    assert largest(half, exact) < 1e-11


def test_diffusion_keeps_the_mean_and_damps_waves():
    domain = ide.TokenDomain.uniform(16)
    wave = jnp.cos(3 * jnp.pi * (jnp.arange(16) + 0.5) / 16)[:, None]
    u = 2.0 + wave
    later = ide.Diffusion(0.5).flow(u, domain, 1.0)
    assert largest(later, 2.0 + jnp.exp(-0.5 * (3 * jnp.pi / 16) ** 2) * wave) < 1e-13


def test_the_delta_rule_is_the_update_of_error_free_linear_attention():
    """S ← (I - α k kᵀ) S + α k v, for a state S of one column."""
    k, v, beta = jax.random.normal(jax.random.key(0), (WIDTH,)), 0.4, 0.9
    u = jax.random.normal(jax.random.key(1), (3, WIDTH))
    rule = ide.DeltaRule(jnp.asarray(k)[None], jnp.array([v]), beta)
    k = np.asarray(k)
    alpha = (1 - np.exp(-beta * k @ k)) / (k @ k)
    matrix = np.eye(WIDTH) - alpha * np.outer(k, k)
    expected = np.asarray(u) @ matrix.T + alpha * v * k
    assert largest(rule.flow(u, ide.TokenDomain.uniform(3), 1.0), expected) < 1e-13
    still = ide.DeltaRule(jnp.zeros((1, WIDTH)), jnp.ones(1))
    assert largest(still.flow(u, ide.TokenDomain.uniform(3), 1.0), u) == 0


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (ide.Damping(jnp.ones(3)), r"Damping.rate has shape \(3,\)"),
        (ide.Diffusion(1.0, grid=(2, 2)), "has 4 points, but the domain has 6"),
        (ide.DeltaRule(jnp.ones((2, 3)), jnp.ones(2)), "which makes 6 features"),
    ],
)
def test_exact_operators_of_another_shape(operator, message):
    with pytest.raises(ide.InputError, match=message):
        operator(jnp.ones((6, WIDTH)), ide.TokenDomain.uniform(6))
