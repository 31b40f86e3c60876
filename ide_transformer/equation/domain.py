"""The token domain Ω_x: the points of tokens and the weights of integrals over them."""

import math
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..arguments import AtLeastZero, PositiveInt, checked
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
    - `grid`: how many points there are along each axis, where they are 0, 1, 2, … along it,
      as `uniform` makes them; `None` for other points. On a line, causal attention then
      skips points that come after a whole block of queries.

    **Raises:** `InputError` for arguments that do not fit, and for negative weights.
    """

    points: Float[Array, "..."]
    weights: Annotated[Float[Array, "..."], AtLeastZero] | None = None
    # Static, since it decides which program is compiled.
    grid: tuple[PositiveInt, ...] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.points.ndim != 2 or not self.points.size:
            raise InputError(
                f"TokenDomain.points has shape {self.points.shape}; it must be "
                "[tokens, dimension], for example points[:, None] for text."
            )
        shape = (self.num_tokens, self.points.shape[1])
        if self.grid is not None and (math.prod(self.grid), len(self.grid)) != shape:
            raise InputError(
                f"TokenDomain: grid={self.grid} does not hold {shape[0]} points of dimension "
                f"{shape[1]}; use TokenDomain.uniform."
            )
        if self.weights is not None and self.weights.shape[-1:] != (self.num_tokens,):
            raise InputError(
                f"TokenDomain.weights has shape {self.weights.shape}; its last axis must "
                f"be the {self.num_tokens} tokens of points."
            )

    @classmethod
    @checked
    def uniform(cls, shape: PositiveInt | tuple[PositiveInt, ...]) -> "TokenDomain":
        """Equally weighted points `0, 1, 2, …` along each axis, the last axis fastest.

        **Arguments:**

        - `shape`: number of tokens, or (rows, columns) of a grid of patches.
        """
        shape = shape if isinstance(shape, tuple) else (shape,)
        axes = jnp.meshgrid(
            *(jnp.arange(n, dtype=jnp.result_type(float)) for n in shape), indexing="ij"
        )
        points = jnp.stack(axes, axis=-1).reshape(math.prod(shape), len(shape))
        return cls(points, grid=shape)

    @property
    def num_tokens(self) -> int:
        return self.points.shape[0]

    @property
    def consecutive(self) -> bool:
        """Whether the points are 0, 1, 2, … on a line."""
        return self.grid is not None and len(self.grid) == 1

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
        return TokenDomain(self.points, jnp.where(mask, weights, 0), self.grid)
