"""The token integral of the tests: in each of its forms, by hand, and as plain operations."""

import functools as ft
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer.equation.operators.quadrature.blocks import Blocks, Span, Stream
from ide_transformer.equation.operators.quadrature.integrate import fused_mean, prepare
from ide_transformer.equation.operators.quadrature.token_mean import token_mean


TOKENS = 23
DOMAIN = ide.TokenDomain.uniform(TOKENS)
REGIONS = {
    "all": ide.Fredholm(),
    "past": ide.Volterra(),
    "window": ide.Volterra(window=5),
    "near": ide.Neighborhood(3.5),
}


def make_inputs(tokens=TOKENS, heads=4, shared=2, features=6, seed=0):
    draw = np.random.default_rng(seed).normal
    query = draw(size=(tokens, heads, features))
    key, value = (draw(size=(tokens, shared, features)) for _ in range(2))
    return tuple(jnp.asarray(x) for x in (query, key, value))


def by_hand(inputs, region, *, weights=None, positions=None, bias=None, period=np.inf):
    """One query after the other, in NumPy; `[tokens, heads, features]`."""
    query, key, value = map(np.asarray, inputs)
    tokens, heads, features = query.shape
    weights = np.ones(len(key)) if weights is None else weights
    positions = np.arange(tokens) if positions is None else positions
    shared = key.shape[1]
    out = np.zeros((tokens, heads, value.shape[-1]))
    for x in range(tokens):
        for h in range(heads):
            s = h // (heads // shared)
            scores = key[:, s] @ query[x, h] / math.sqrt(features)
            if bias is not None:
                scores = scores + bias[h, x]
            gamma = np.exp(scores - scores.max()) * weights
            if isinstance(region, ide.Neighborhood):
                distance = np.abs(positions[x] - positions)
                gamma = gamma * (np.minimum(distance, period - distance) < region.radius)
            if isinstance(region, ide.Volterra):
                distance = positions[x] - positions
                gamma = gamma * (distance >= 0)
                if region.window is not None:
                    gamma = gamma * (distance < region.window)
            out[x, h] = gamma @ value[:, s] / gamma.sum()
    return out


def in_parts(kind, query, key, value, region, *, domain=DOMAIN, places=None, bias=None):
    """The integral in a form, in blocks of a size that tests can afford; `places` is the domain
    of the queries."""
    if kind == "fused":
        inputs = (x[None] for x in (query, key, value))
        return fused_mean(*inputs, domain, region, implementation="xla")[0]
    in_order = places is None and domain.consecutive
    places, tokens = domain if places is None else places, domain.num_tokens
    integrand, restore = prepare(query, key, value, places, domain, bias)
    size = tokens if kind == "dense" else 7
    spans = (Span(a, min(a + size, tokens), 0, tokens) for a in range(0, tokens, size))
    quadrature = Blocks(region, tuple(spans))
    if kind == "stream":
        quadrature = Stream(region, 4, in_order)
    return restore(token_mean(integrand, quadrature).mean)


compiled_in_parts = eqx.filter_jit(in_parts)


def plain(query, key, value, weights, inside, outside=-jnp.inf):
    """The same mathematics with nothing but operations that JAX differentiates itself."""
    repeats = query.shape[-2] // key.shape[-2]
    key, value = (jnp.repeat(x, repeats, axis=-2) for x in (key, value))
    s = jnp.einsum("xhd,zhd->hxz", query, key) / math.sqrt(query.shape[-1])
    s = s if inside is None else jnp.where(jnp.broadcast_to(inside, s.shape), s, outside)
    s = s - jax.lax.stop_gradient(jnp.max(s, axis=-1, keepdims=True))
    gamma = jnp.exp(s) * jnp.broadcast_to(weights, s.shape)
    return jnp.einsum("hxz,zhd->xhd", gamma / jnp.sum(gamma, axis=-1, keepdims=True), value)


@ft.partial(jax.jit, static_argnums=0)
def derivatives(f, primals, *rest):
    """A function and its gradient by some arguments, each with its derivative along a
    direction."""

    def value(*primals):
        return f(*primals, *rest)

    def gradient(*primals):
        arguments = tuple(range(len(primals)))
        return jax.grad(lambda *x: jnp.sum(jnp.sin(value(*x))), argnums=arguments)(*primals)

    tangents = tuple(jnp.cos(7 * x) for x in primals)
    return jax.jvp(value, primals, tangents), jax.jvp(gradient, primals, tangents)
