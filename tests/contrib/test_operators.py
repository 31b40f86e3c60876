"""Attention among slices, by hand; a V-cycle written out token by token, causality, and
padding."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import InputError
from ide_transformer.contrib import PairFeedForward, SliceAttention, VCycle
from tests.conformance.operators import OperatorConformance
from tests.helpers import built, drawn, largest
from tests.published import numpy_blocks
from tests.published.numpy_blocks import gelu, layer_norm, linear


WIDTH, HEADS, LEVELS = 4, 2, 2
NORM = ide.LayerNorm(eps=1e-5)


def cycle(make, levels=LEVELS, constraint=ide.Free()):
    """A V-cycle with random weights."""
    return built(lambda: VCycle(make(jax.random.key(0)), constraint, levels))


def pairs(key):
    return PairFeedForward(WIDTH, normalization=NORM, key=key)


def attention(key):
    return ide.Attention(WIDTH, HEADS, normalization=NORM, key=key)


apply = eqx.filter_jit(lambda operator, u, domain: operator(u, domain))


def rate_of_pairs(operator, u):
    v = layer_norm(u)
    hidden = linear(operator.own, v)
    hidden[1:] += linear(operator.earlier, v[:-1])
    return linear(operator.outer, gelu(hidden))


def rate_of_attention(operator, u):
    v = layer_norm(u)
    return numpy_blocks.attended(operator, v, v, v, 1.0, numpy_blocks.softmax_kernel)


def by_hand(operator, rate, u):
    """`V(u) - u` in place: the lines are tokens `s - 1, 2 s - 1, 3 s - 1, …`, s = 1, 2, 4, …"""
    v = u.copy()
    strides = [2**k for k in range(len(u).bit_length())]

    def smooth(level, first):
        line = np.arange(strides[level] - 1, len(u), strides[level])
        smoother = operator.operators[min(level, len(operator.operators) - 1)]
        changed = v[line] + rate(smoother, v[line])
        if type(operator.constraint) is ide.Sphere:
            changed = layer_norm(changed, eps=0.0)
        v[line[first::2]] = changed[first::2]

    for level in range(len(strides) - 1):
        smooth(level, 1)
    for level in reversed(range(len(strides))):
        smooth(level, 0)
    return v - u


@pytest.mark.parametrize("tokens", [1, 7, 17])
def test_it_is_a_cycle_written_out(tokens):
    """With all kinds of lines: a token sees all earlier ones and no later one."""
    operator = cycle(pairs, constraint=ide.Sphere())
    u = drawn((2, tokens, WIDTH), seed=3)
    expected = [by_hand(operator, rate_of_pairs, np.asarray(x)) for x in u]
    assert largest(apply(operator, u, ide.TokenDomain.uniform(tokens)), expected) < 1e-12


def test_padded_samples_are_as_shorter_ones():
    """Of every length up to 5, with attention to all tokens of a line."""
    operator = cycle(attention, constraint=ide.Sphere())
    tokens = 5
    u = drawn((tokens, tokens, WIDTH), seed=3)
    mask = np.tri(tokens, dtype=bool)
    rates = apply(operator, u, ide.TokenDomain.uniform(tokens).padded(mask))
    for length, (ours, state) in enumerate(zip(rates, u, strict=True), start=1):
        expected = by_hand(operator, rate_of_attention, np.asarray(state[:length]))
        assert largest(ours[:length], expected) < 1e-12


def test_operators_conform():
    OperatorConformance(cycle(pairs), WIDTH, options={"operator": "pair_feed_forward"}).check()
    OperatorConformance(built(lambda: pairs(jax.random.key(0))), WIDTH).check()


def test_what_is_no_line_or_sees_no_neighbour_is_refused():
    u = jnp.zeros((4, WIDTH))
    for domain in ide.TokenDomain.periodic(4), ide.TokenDomain.uniform((2, 2)):
        with pytest.raises(InputError, match=r"VCycle .*tokens"):
            cycle(pairs)(u, domain)


def slices_by_hand(operator, u, weights):
    v = layer_norm(u)
    shares = numpy_blocks.softmax(linear(operator.assignment, v).reshape(len(u), HEADS, 3))
    values = linear(operator.value, v).reshape(len(u), HEADS, -1)
    rate = np.zeros_like(values)
    for head in range(HEADS):
        a = shares[:, head] * weights[:, None]
        means = a.T @ values[:, head] / a.sum(0)[:, None]
        maps = operator.query, operator.key, operator.mixing
        query, key, mixed = (linear(x, means) for x in maps)
        scores = query @ key.T / np.sqrt(WIDTH / HEADS)
        rate[:, head] = shares[:, head] @ numpy_blocks.softmax(scores) @ mixed
    return linear(operator.output, rate.reshape(len(u), WIDTH))


def test_it_is_attention_among_weighted_means():
    options = dict(normalization=NORM, key=jax.random.key(0))
    operator = built(lambda: SliceAttention(WIDTH, HEADS, 3, **options))
    random, tokens = np.random.default_rng(0), 11
    u, weights = random.normal(size=(tokens, WIDTH)), random.random(tokens)
    points = jnp.asarray(random.random((tokens, 2)))
    weighted = apply(operator, jnp.asarray(u), ide.TokenDomain(points, jnp.asarray(weights)))
    assert largest(weighted, slices_by_hand(operator, u, weights)) < 1e-12
    plain = apply(operator, jnp.asarray(u), ide.TokenDomain(points))
    assert largest(plain, slices_by_hand(operator, u, np.ones(tokens))) < 1e-12
