"""Transformers written out by hand, without this package, to compare the march with. A
`lax.scan` over stacked weights makes one step of a scheme in its body."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree


Weights = dict[str, Array]
Field = Callable[[Array], Array]


def normalise(u: Float[Array, "... features"], gain: Float[Array, " features"]) -> Array:
    """Layer norm with a gain and no bias."""
    centred = u - jnp.mean(u, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return jnp.broadcast_to(gain, u.shape) * centred * lax.rsqrt(variance + 1e-5)


def attention(u: Float[Array, "batch tokens features"], w: Weights, heads: int) -> Array:
    """Causal attention of the normalised input."""
    batch, tokens, width = u.shape
    v = normalise(u, w["attention_gain"])
    query, key, value = (
        (v @ w[name]).reshape(batch, tokens, heads, width // heads)
        for name in ("query", "key", "value")
    )
    scores = jnp.einsum("bxhd,bzhd->bhxz", query, key) / query.shape[-1] ** 0.5
    past = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    scores = jnp.where(jnp.broadcast_to(past, scores.shape), scores, -jnp.inf)
    mixed = jnp.einsum("bhxz,bzhd->bxhd", jax.nn.softmax(scores, axis=-1), value)
    return mixed.reshape(u.shape) @ w["output"]


def feed_forward(u: Float[Array, "batch tokens features"], w: Weights) -> Array:
    """The feed-forward of the normalised input, with the exact GELU."""
    v = normalise(u, w["feed_forward_gain"])
    return jax.nn.gelu(v @ w["inner"], approximate=False) @ w["outer"]


def heun(field: Field, u: Array, h: float) -> Array:
    """`u + h/2 (F(u) + F(u + h F(u)))`."""
    first = field(u)
    return u + h / 2 * (first + field(u + h * first))


def lie_trotter_layer(attention: Field, feed_forward: Field, u: Array) -> Array:
    """Lie–Trotter with Euler sub-steps, h = 1: the pre-norm block."""
    u = u + attention(u)
    return u + feed_forward(u)


def heun_layer(attention: Field, feed_forward: Field, u: Array) -> Array:
    """Unsplit Heun, h = 1, on the sum of both operators."""
    return heun(lambda v: attention(v) + feed_forward(v), u, 1.0)


def strang_layer(attention: Field, feed_forward: Field, u: Array) -> Array:
    """Strang with Heun sub-steps, h = 1: half of the attention before and after."""
    return heun(attention, heun(feed_forward, heun(attention, u, 0.5), 1.0), 0.5)


def fields(w: Weights, heads: int) -> tuple[Field, Field]:
    """The attention and the feed-forward of one layer."""
    return lambda u: attention(u, w, heads), lambda u: feed_forward(u, w)


def scan_layers(
    layer: Callable[[Field, Field, Array], Array],
    fields_of: Callable[[PyTree], tuple[Field, Field]],
    weights: PyTree[Array],
    u0: Float[Array, "batch tokens features"],
    *,
    policy: Callable | None = None,
) -> Float[Array, "batch tokens features"]:
    """The state after all layers."""

    def body(u: Array, w: PyTree[Array]) -> tuple[Array, None]:
        return layer(*fields_of(w), u), None

    if policy is not None:
        body = jax.checkpoint(body, policy=policy, prevent_cse=False)
    return lax.scan(body, u0, weights)[0]
