"""Attention to the state and to a source, and the positions of tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import DOMAIN, apply, block_at, equations_of, project, state
from helpers import TOKENS, WIDTH, built, largest, make_block
from published.numpy_blocks import attention, linear

import ide_transformer as ide
from ide_transformer.integration import Discretization, TokenMarch


OTHERS, SEEN = 7, 6
SOURCE_DOMAIN = ide.TokenDomain.uniform(OTHERS)
WEIGHTS = np.array([0.5, 1.0, 2.0, 0.0, 0.3, 1.0, 0.1])


def in_numpy(operator, v, f, weights):
    """Head by head, for one normalised state v and one source f."""
    query, key, value = (
        linear(x, y).reshape(len(y), -1, operator.head_features)
        for x, y in ((operator.query, v), (operator.key, f), (operator.value, f))
    )
    heads, repeats = [], operator.heads // operator.key_value_heads
    for h in range(operator.heads):
        q, k, x = query[:, h], key[:, h // repeats], value[:, h // repeats]
        gamma = np.exp(q @ k.T / np.sqrt(q.shape[-1])) * weights
        heads.append(gamma @ x / gamma.sum(-1, keepdims=True))
    return linear(operator.output, np.concatenate(heads, axis=-1))


@eqx.filter_jit
def score_bias(positions, domain):
    return positions.score_bias(domain, domain)


def crossed(heads=4, **options):
    options = dict(source_features=SEEN, std=0.5, normalization=ide.LayerNorm()) | options
    return built(lambda: ide.CrossAttention(WIDTH, heads, key=jax.random.key(0), **options))


@pytest.mark.parametrize(
    "heads, shared, causal, normalization",
    [
        (4, 4, False, ide.Free()),
        (4, 2, True, ide.LayerNorm()),
        (4, 1, False, ide.RMSNorm()),
        (1, 1, True, ide.Free()),
    ],
)
def test_attention_equals_numpy(heads, shared, causal, normalization, key):
    options = dict(key_value_heads=shared, causal=causal, normalization=normalization)
    operator = built(lambda: ide.Attention(WIDTH, heads, key=key, std=0.5, **options))
    u, seen = state(), np.tri(TOKENS) if causal else np.ones((TOKENS, TOKENS))
    v = np.asarray(project(normalization, u))
    assert largest(apply(operator, u), in_numpy(operator, v, v, seen)) < 1e-12


@pytest.mark.parametrize("heads, key_bias", [(1, True), (4, False)])
def test_attention_to_a_source_equals_numpy(heads, key_bias):
    """With weights of the source for each sample, and padding."""
    operator = crossed(heads, key_bias=key_bias)
    assert (operator.key.bias is None) != key_bias
    u, f = state(2, 3), state(2, 3, tokens=OTHERS, width=SEEN)
    weights = WEIGHTS * (np.arange(OTHERS) < np.array([[[7], [4], [5]], [[6], [7], [1]]]))
    domain = ide.TokenDomain(SOURCE_DOMAIN.points, jnp.asarray(weights))
    rate = apply(operator.with_source(f, domain), u)
    v, f = np.asarray(project(operator.normalization, u)), np.asarray(f)
    for sample in np.ndindex(2, 3):
        expected = in_numpy(operator, v[sample], f[sample], weights[sample])
        assert largest(rate[sample], expected) < 1e-12


def test_attention_that_sees_the_source_shifts_its_queries_keys_and_values(key):
    inner = built(lambda: ide.Attention(WIDTH, 4, key=key))
    operator = built(lambda: ide.SourcedAttention(inner, key=key))
    u, f = np.asarray(state()), np.asarray(state(seed=9))
    shift = f @ np.asarray(operator.source_map.weight)
    expected = attention(operator.attention, u, causal=False, shift=shift)
    assert largest(apply(operator.with_source(jnp.asarray(f)), u), expected) < 1e-12


@pytest.mark.parametrize("own", [False, True])
def test_the_integral_is_a_product_in_the_dtype_of_the_weights(own, key):
    """Every product, of attention to a source and to the state, is one of bfloat16; the rate
    has the dtype of the state."""
    low = jnp.bfloat16
    u, f = (jnp.asarray(x, jnp.float32) for x in (state(), state(tokens=7, width=SEEN)))
    weights = built(lambda: ide.Attention(WIDTH, 4, key=key)) if own else crossed()
    weights = jax.tree.map(lambda x: x.astype(low if x.ndim == 2 else jnp.float32), weights)
    weights = weights if own else weights.with_source(f, SOURCE_DOMAIN)
    traced = jax.make_jaxpr(lambda u: weights(u, DOMAIN))(u)
    products = [x for x in equations_of(traced.jaxpr) if x.primitive.name == "dot_general"]
    # Queries, keys, values, scores, means and the output.
    assert len(products) == 6
    assert all(v.aval.dtype == low for x in products for v in x.invars)
    assert traced.out_avals[0].dtype == u.dtype


def test_sources_of_both_kinds_in_one_equation():
    """Each operator sees its own: the order in which they are put in does not matter."""
    u, f, g = state(), state(tokens=OTHERS, width=SEEN), state(seed=9)
    theta = ide.Tied((crossed(), ide.Relaxation(2.0)), 1)
    inside = ide.Sourced(ide.Sourced(theta, g), f, SOURCE_DOMAIN)
    outside = ide.Sourced(ide.Sourced(theta, f, SOURCE_DOMAIN), g)
    expected = apply(crossed().with_source(f, SOURCE_DOMAIN), u) + 2 * (g - u)
    for control in (inside, outside):
        rates = [apply(operator, u) for operator in block_at(control, 0.0)]
        assert largest(sum(rates), expected) < 1e-13


def test_distances_on_a_torus_are_those_of_the_shorter_way():
    lengths = (1.0, 3.0)
    torus = ide.TokenDomain.periodic((5, 4), lengths)
    points = np.asarray(torus.points)
    apart = np.abs(points[:, None] - points)
    distance = np.linalg.norm(np.minimum(apart, np.array(lengths) - apart), axis=-1)
    bias, linear = score_bias(ide.LinearBias(1), torus), ide.LinearBias(1)
    assert largest(bias[0], -distance / 256) < 1e-15
    total = jax.jit(jax.grad(lambda domain: linear.score_bias(domain, domain).sum()))
    assert np.isfinite(total(torus).points).all()
    indicator = jax.jit(ide.Neighborhood(0.77).indicator)
    assert np.array_equal(indicator(torus, torus), distance < 0.77)


def test_a_window_around_the_circle_moves_with_the_state(key):
    circle, u = ide.TokenDomain.periodic(TOKENS), state()
    options = dict(window=0.4, positions=ide.LinearBias(4, scale=9.0))
    operator = built(lambda: ide.Attention(WIDTH, 4, key=key, **options))
    moved = apply(operator, np.roll(u, 2, axis=-2), circle)
    assert largest(moved, np.roll(apply(operator, u, circle), 2, axis=-2)) < 1e-13


@pytest.mark.parametrize("heads", [1, 6, 8, 12])
def test_slopes_are_those_of_press_and_others(heads):
    """Their code: those of the next lower power of two, and every second one of its double."""

    def published(number):
        power = 2 ** int(np.log2(number))
        slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
        more = [] if power == number else published(2 * power)[0::2][: number - power]
        return slopes + more

    line = ide.TokenDomain.uniform(2)
    bias = np.asarray(score_bias(ide.LinearBias(heads, scale=3.0), line))
    np.testing.assert_allclose(-bias[:, 0, 1], 3.0 * np.array(published(heads)), rtol=1e-15)


def test_buckets_of_distances_are_those_of_t5():
    """Their code, of both directions: half of the buckets for tokens that come later."""
    table = jnp.arange(32.0).reshape(16, 2)
    line, places = ide.TokenDomain.uniform(60), np.arange(60)
    found = np.asarray(score_bias(ide.RelativeBias(table, 40), line))
    for x, z in ((0, 0), (3, 0), (4, 0), (9, 0), (50, 0), (0, 3), (0, 4), (0, 17), (2, 59)):
        distance, bucket = abs(places[z] - places[x]), 8 * (z > x)
        if distance < 4:
            bucket += distance
        else:
            bucket += min(int(4 + np.log(distance / 4) / np.log(40 / 4) * 4), 7)
        assert found[:, x, z].tolist() == [2 * bucket, 2 * bucket + 1]


def test_rotary_turns_by_the_position():
    """Features i and i + d/2 of a head are one complex number, times exp(i x base^(-2i/d)); a
    stretch divides the frequencies, and features after the first `features` stay."""
    x, places = state(width=8)[:, None, :], np.arange(TOKENS)[:, None, None]
    for d, stretch in ((8, None), (4, (2.0, 3.0))):
        positions = ide.Rotary(100.0, None if d == 8 else d, stretch)
        turned = np.asarray(apply(positions, x))
        frequencies = 100.0 ** (-2 * np.arange(d // 2) / d) / np.array(stretch or 1.0)
        pairs = np.asarray(x)[..., : d // 2] + 1j * np.asarray(x)[..., d // 2 : d]
        expected = pairs * np.exp(1j * places * frequencies)
        found = turned[..., : d // 2] + 1j * turned[..., d // 2 : d]
        assert np.abs(found - expected).max() < 1e-14
        assert np.array_equal(turned[..., d:], x[..., d:])


def test_end_weights_count_in_causal_attention_only(key):
    domain = ide.TokenDomain.trapezoid(jnp.linspace(0, 1, 6))
    without = ide.TokenDomain(domain.points, domain.weights)
    for causal in (True, False):
        operator, _ = built(lambda causal=causal: make_block(key, causal=causal))
        rates = [apply(operator, state(), x) for x in (domain, without)]
        assert (largest(*rates) > 0) is causal


@pytest.mark.heavy
def test_tokens_marched_one_after_the_other_have_the_same_ends(key):
    """And the same weights: the tokens read first had equal ones."""
    domain = ide.TokenDomain.trapezoid(jnp.linspace(0, 1, 6) ** 2)
    equation = ide.Equation(ide.Tied(make_block(key), num_intervals=2), ide.Free(), domain)
    u0, shape = state(), jax.ShapeDtypeStruct((1, WIDTH), float)
    whole = ide.solve(equation, u0, solver=ide.RK4()).u1
    march = TokenMarch(equation, Discretization(ide.RK4()), shape)
    first, cache = eqx.filter_jit(march.prefill)(u0[:3])
    rest, _ = eqx.filter_jit(march.extend)(u0[3:], 3, cache)
    assert largest(jnp.concatenate([first, rest]), whole) < 1e-13
