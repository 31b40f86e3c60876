"""The token domain Ω_x: the points of tokens and the weights of integrals over them."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..errors import InputError


class TokenDomain(eqx.Module):
    """Points `x_j` of Ω_x and quadrature weights `w_j`, so that

        ∫_Ωx g(x') dx'  ≈  Σ_j w_j g(x_j).

    Nothing else in the package knows how tokens are spaced.

    **Arguments:**

    - `points`: `[tokens, dimension]`, the coordinates of each token. Text has dimension 1
      and unit spacing, an image of patches has dimension 2.
    - `weights`: `[..., tokens]`, non-negative; leading axes give each sample weights of
      its own. `None` means equal weights, for which attention is exactly the softmax.
    - `consecutive`: whether the points are 0, 1, 2, … on a line, as `uniform` makes them.
      Causal attention then skips points that come after a whole block of queries.
    """

    points: Float[Array, "..."]
    weights: Float[Array, "..."] | None = None
    # Static, since it decides which program is compiled.
    consecutive: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.points.ndim != 2:
            raise InputError(
                f"TokenDomain.points has shape {self.points.shape}; it must be "
                "[tokens, dimension], for example points[:, None] for text."
            )
        if self.weights is not None and self.weights.shape[-1] != self.num_tokens:
            raise InputError(
                f"TokenDomain.weights has shape {self.weights.shape}; its last axis must "
                f"be the {self.num_tokens} tokens of points."
            )

    @classmethod
    def uniform(cls, shape: int | tuple[int, ...]) -> "TokenDomain":
        """Equally weighted points `0, 1, 2, …` along each axis, the last axis fastest.

        **Arguments:**

        - `shape`: number of tokens, or (rows, columns) of a grid of patches.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not shape or min(shape) < 1:
            raise InputError(
                f"TokenDomain.uniform({shape}): every axis needs at least one token."
            )
        axes = jnp.meshgrid(
            *(jnp.arange(n, dtype=jnp.result_type(float)) for n in shape), indexing="ij"
        )
        points = jnp.stack(axes, axis=-1).reshape(math.prod(shape), len(shape))
        return cls(points, consecutive=len(shape) == 1)

    @property
    def num_tokens(self) -> int:
        return self.points.shape[0]

    @property
    def positions(self) -> Float[Array, " tokens"]:
        """The coordinate of each token on a one-dimensional domain.

        **Raises:** `InputError` where the domain has more than one dimension: there, tokens
        have no order and no distance along the text.
        """
        if self.points.shape[1] != 1:
            raise InputError(
                f"This TokenDomain has {self.points.shape[1]} dimensions; causal "
                "attention and rotary positions need a one-dimensional one."
            )
        return self.points[:, 0]

    @property
    def log_weights(self) -> Float[Array, "*batch tokens"] | None:
        """`log w_j`, with a large negative number in place of `log 0`; `None` if equal."""
        if self.weights is None:
            return None
        positive = self.weights > 0
        floor = jnp.finfo(self.weights.dtype).min / 4
        return jnp.where(positive, jnp.log(jnp.where(positive, self.weights, 1)), floor)

    def padded(self, mask: Bool[Array, "*batch tokens"]) -> "TokenDomain":
        """The domain without its padding: tokens where `mask` is `False` get weight 0, so
        that they do not contribute to integrals over Ω_x."""
        weights = jnp.ones_like(self.points[:, 0]) if self.weights is None else self.weights
        weights = jnp.broadcast_to(weights, jnp.broadcast_shapes(weights.shape, mask.shape))
        return TokenDomain(self.points, jnp.where(mask, weights, 0), self.consecutive)
