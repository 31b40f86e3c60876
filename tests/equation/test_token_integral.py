"""The token integral in all its forms, against plain operations, and how arrays lie on a mesh
of devices."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import ide_transformer as ide
from ide_transformer.equation import integrate, on_devices, partition_spec
from ide_transformer.equation.operators.token_integral import (
    Span,
    fused_mean,
    prepare,
    token_mean,
)
from tests.helpers import built, fast_first, largest, random_state


TOKENS = 23
DOMAIN = ide.TokenDomain.uniform(TOKENS)
PAST, WINDOW = ide.equation.Volterra(), ide.equation.Volterra(window=5)
# Some are zero; each query sees another one.
WEIGHTS = np.where(np.arange(TOKENS) % 4 == 1, 0, 1 + np.arange(TOKENS) / 9)
ENDS = np.where(np.arange(TOKENS) % 5 == 2, 0, 0.5 * WEIGHTS)


def make_inputs(seed=0, tokens=TOKENS):
    draw = np.random.default_rng(seed).normal
    return tuple(jnp.asarray(draw(size=(tokens, heads, 6))) for heads in (4, 2, 2))


INPUTS = make_inputs()


def plain(query, key, value, weights, bias=0.0):
    """With nothing but operations that JAX differentiates itself; `weights` of each point in
    the integral of each query, `[tokens, heads, features]` of the others."""
    key, value = (jnp.repeat(x, 2, axis=-2) for x in (key, value))
    s = jnp.einsum("xhd,zhd->hxz", query, key) / math.sqrt(query.shape[-1]) + bias
    gamma = jnp.exp(s) * jnp.broadcast_to(weights, s.shape)
    return jnp.einsum("hxz,zhd->xhd", gamma / jnp.sum(gamma, axis=-1, keepdims=True), value)


def expected(inputs, region, *, weights=1.0, positions=None, bias=0.0):
    """The integral over a region, by `plain`; `weights` also one for each point."""
    tokens = len(inputs[0])
    positions = np.arange(tokens) if positions is None else positions
    distance = positions[:, None] - positions
    is_past = (distance >= 0) & (distance < (getattr(region, "window", None) or np.inf))
    is_seen = is_past | (not isinstance(region, ide.equation.Volterra))
    return jax.jit(plain)(*inputs, is_seen * np.broadcast_to(weights, is_seen.shape), bias)


def in_parts(kind, query, key, value, region, *, domain=DOMAIN, places=None, bias=None):
    """The integral in a form, `loop` in a span and blocks of another; `places` is the domain
    of the queries."""
    if kind == "fused":
        inputs = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
        mean = fused_mean(*inputs, domain, region, implementation="xla")
        return mean.reshape(query.shape)
    queries = domain if places is None else places
    queries, points, restore = prepare(query, key, value, queries, domain, bias)
    spans = [Span(0, TOKENS, 0, TOKENS, TOKENS)]
    if kind == "loop":
        spans = [Span(0, 14, 0, TOKENS, 14), Span(14, TOKENS, 0, TOKENS, 4)]
    return restore(token_mean(queries, points, region, tuple(spans)).mean)


compiled = eqx.filter_jit(in_parts)


@pytest.mark.parametrize(
    ("kind", "region"), [("dense", WINDOW), ("loop", ide.equation.Fredholm()), ("loop", WINDOW)]
)
def test_every_form_equals_plain_operations(kind, region):
    domain = ide.TokenDomain(DOMAIN.points, jnp.asarray(WEIGHTS), DOMAIN.grid)
    mean = compiled(kind, *INPUTS, region, domain=domain)
    assert largest(mean, expected(INPUTS, region, weights=WEIGHTS)) < 1e-13


def derivatives(f, *primals):
    def gradient(*primals):
        arguments = tuple(range(len(primals)))
        return jax.grad(lambda *x: jnp.sum(jnp.sin(f(*x))), argnums=arguments)(*primals)

    tangents = tuple(jnp.cos(7 * x) for x in primals)
    return f(*primals), jax.jvp(gradient, primals, tangents)


@pytest.mark.parametrize(
    ("kind", "region"), fast_first(1, [("loop", "ends"), ("dense", WINDOW)])
)
def test_derivatives_of_every_form(kind, region):
    with_ends, region = region == "ends", PAST if region == "ends" else region
    points, inside = DOMAIN.points, jnp.asarray(region.indicator(DOMAIN, DOMAIN), float)

    def ours(query, key, value, weights, ends):
        domain = ide.TokenDomain(points, weights, DOMAIN.grid)
        if with_ends:
            domain = ide.TokenDomain(points, weights, ends=points.T, end_weights=ends[None])
        return in_parts(kind, query, key, value, region, domain=domain)

    def by_jax(query, key, value, weights, ends):
        # A point has its end weight in its own integral.
        apart = jnp.diag((ends - weights) * with_ends)
        weights = jnp.broadcast_to(weights, inside.shape)
        return plain(query, key, value, inside * (weights + apart))

    primals = (*INPUTS, jnp.asarray(WEIGHTS), jnp.asarray(ENDS))
    sides = (jax.jit(lambda *x, f=f: derivatives(f, *x))(*primals) for f in (ours, by_jax))
    for a, b in zip(*map(jax.tree.leaves, sides), strict=True):
        assert largest(a, b) < 1e-11 * (1 + largest(b, 0))


def test_a_bias_of_the_scores_of_points_in_any_order():
    draw = np.random.default_rng(5)
    bias, positions = draw.normal(size=(4, TOKENS, TOKENS)), draw.permutation(TOKENS)
    domain = ide.TokenDomain(jnp.asarray(positions, float)[:, None])
    mean = compiled("loop", *INPUTS, PAST, domain=domain, bias=jnp.asarray(bias))
    assert largest(mean, expected(INPUTS, PAST, bias=bias, positions=positions)) < 1e-13


# JAX computes the scores of the fused form in float32, whatever the dtype of the inputs.
@pytest.mark.parametrize("kind, bound", [("loop", 1e-13), ("fused", 1e-6)])
def test_samples_of_a_batch_are_apart(kind, bound):
    samples = INPUTS, make_inputs(seed=7)
    masks = np.arange(TOKENS)[None] < np.array([[TOKENS], [11]])
    batch = (jnp.asarray(np.stack(x)) for x in zip(*samples, strict=True))
    means = compiled(kind, *batch, PAST, domain=DOMAIN.padded(jnp.asarray(masks)))
    for mean, inputs, mask in zip(means, samples, masks, strict=True):
        assert largest(mean, expected(inputs, PAST, weights=mask)) < bound


def test_the_fused_form_knows_the_ends_of_an_integral():
    domain = ide.TokenDomain.trapezoid(jnp.asarray(np.arange(TOKENS) ** 1.5))
    weights = np.tile(domain.weights, (TOKENS, 1))
    np.fill_diagonal(weights, domain.end_weights[0])
    # Nothing but the value itself is left for the first query.
    weights[0, 0] = 1.0
    mean = compiled("fused", *INPUTS, PAST, domain=domain)
    assert largest(mean, expected(INPUTS, PAST, weights=weights)) < 1e-6


def test_low_precision_accumulates_in_float32():
    mean = compiled("loop", *(x.astype(jnp.bfloat16) for x in INPUTS), PAST)
    assert mean.dtype == jnp.float32
    assert largest(mean, expected(INPUTS, PAST)) < 0.05


def test_blocks_of_many_points_of_which_some_are_not_seen():
    inputs, domain = make_inputs(tokens=130), ide.TokenDomain.uniform(130)
    mean = jax.jit(lambda *x: integrate(*x, domain, domain, WINDOW))(*inputs)
    assert largest(mean, expected(inputs, WINDOW)) < 1e-13


def test_gradients_of_padded_weights_stay_finite(key):
    """Scores of padding are the largest; from the first token on, nothing is seen."""
    operator = built(lambda: ide.Attention(8, 2, key=key), std=1.0)
    u = np.array(random_state(width=8))
    u[3:] *= 300

    def total(weights, u, mask):
        domain = ide.TokenDomain(jnp.arange(6.0)[:, None], weights)
        return jnp.sum(operator(u, domain.padded(mask)))

    gradients_of = jax.jit(jax.grad(total, argnums=(0, 1)))
    for num_seen in (3, 0):
        for gradient in gradients_of(np.ones(6), u, np.arange(6) < num_seen):
            assert np.isfinite(gradient).all()


def test_an_axis_that_devices_do_not_divide_stays_whole():
    sizes, names = dict(data=2, fsdp=3, tensor=1, sequence=4), ("samples", "tokens", "inner")
    assert partition_spec((12, 8, 5), names, sizes) == PartitionSpec(
        ("data", "fsdp"), ("sequence",), None
    )
    assert partition_spec((8, 6, 5), names, sizes) == PartitionSpec(None, None, None)
    u = jax.ShapeDtypeStruct((2, 4, 8), float)
    assert "sharding" not in str(jax.make_jaxpr(on_devices)(u))
