"""The token integral by a fused kernel of the device."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...domain import TokenDomain
from ..region import AbstractRegion


def is_served(
    query: Float[Array, "*batch tokens heads features"],
    region: AbstractRegion,
    *,
    in_order: bool,
    biased: bool,
) -> bool:
    """Whether cuDNN's flash attention can compute it: on a GPU, in low precision, for
    consecutive tokens, a region that it knows, and no bias of the scores."""
    low = query.dtype == jnp.bfloat16
    known = region.band() is not None
    width = query.shape[-1]
    fits = width <= 128 and width % 8 == 0 and query.shape[-3] > 1
    return jax.default_backend() == "gpu" and low and known and fits and in_order and not biased


def fused_mean(
    query: Float[Array, "*batch tokens heads features"],
    key: Float[Array, "*batch tokens shared features"],
    value: Float[Array, "*batch tokens shared features"],
    domain: TokenDomain,
    region: AbstractRegion,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "*batch tokens heads features"]:
    """`integrate` on consecutive tokens by `jax.nn.dot_product_attention`. It has reverse mode
    only. On a GPU it has not been run yet; its mathematics are tested with `xla`.

    **Arguments:**

    - `implementation`: of `jax.nn.dot_product_attention`.
    """
    batch, tokens = query.shape[:-3], query.shape[-3]

    def flat(x):
        return x.reshape(-1, *x.shape[-3:])

    bias = None
    if domain.log_weights is not None:
        bias = jnp.broadcast_to(domain.log_weights, (*batch, tokens)).reshape(-1, 1, 1, tokens)
        bias = jnp.broadcast_to(bias, (*bias.shape[:2], tokens, tokens)).astype(query.dtype)
    band = region.band()
    assert band is not None, f"{type(region).__name__} has no fused kernel"
    mean = jax.nn.dot_product_attention(
        flat(query),
        flat(key),
        flat(value),
        bias=bias,
        is_causal=band.causal,
        local_window_size=None if band.window is None else (band.window - 1, 0),
        implementation=implementation,
    )
    return mean.reshape(query.shape).astype(jnp.promote_types(query.dtype, jnp.float32))
