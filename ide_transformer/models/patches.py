"""Images as grids of patches, the points of a two-dimensional Ω_x."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..equation import TokenDomain


def split_patches(
    images: Float[Array, "*batch rows columns channels"], patch: int
) -> Float[Array, "*batch tokens pixels"]:
    """Each patch as one token, row by row; its pixels row by row, channels last."""
    *batch, rows, columns, channels = images.shape
    grid = images.reshape(*batch, rows // patch, patch, columns // patch, patch, channels)
    tokens = (rows // patch) * (columns // patch)
    return jnp.swapaxes(grid, -4, -3).reshape(*batch, tokens, patch * patch * channels)


def patch_domain(grid: tuple[int, int], prefix: int) -> TokenDomain:
    """The patches at unit spacing, after `prefix` tokens that lie at their centre."""
    patches = TokenDomain.uniform(grid)
    if not prefix:
        return patches
    centre = jnp.mean(patches.points, axis=0, keepdims=True)
    return TokenDomain(jnp.concatenate([centre] * prefix + [patches.points]))
