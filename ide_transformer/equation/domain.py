"""The token domain Ω_x: the points of tokens and the weights of integrals over them."""

import math
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..arguments import AtLeastZero, PositiveInt, checked, is_known
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
    - `end_weights`: `[..., tokens]`, non-negative: the weight of `x_j` where it is the end of
      the integral, `∫_{x' ≤ x_j}` in causal attention. `None` means `weights`: each token
      counts in full, as in text. A rule for functions on an interval has weights of its own
      here, see `trapezoid`.
    - `grid`: how many points there are along each axis, where they are 0, 1, 2, … along it,
      as `uniform` makes them; `None` for other points. On a line, causal attention then
      skips points that come after a whole block of queries.

    **Raises:** `InputError` for arguments that do not fit, and for negative weights.
    """

    points: Float[Array, "..."]
    weights: Annotated[Float[Array, "..."], AtLeastZero] | None = None
    # Static, since it decides which program is compiled.
    grid: tuple[PositiveInt, ...] | None = eqx.field(static=True, default=None)
    end_weights: Annotated[Float[Array, "..."], AtLeastZero] | None = None

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
        for name in ("weights", "end_weights"):
            weights = getattr(self, name)
            if weights is not None and weights.shape[-1:] != (self.num_tokens,):
                raise InputError(
                    f"TokenDomain.{name} has shape {weights.shape}; its last axis must "
                    f"be the {self.num_tokens} tokens of points."
                )
        if self.end_weights is not None and self.weights is None:
            raise InputError("TokenDomain: end_weights without weights; give both.")

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

    @classmethod
    @checked
    def trapezoid(cls, points: Float[Array, " tokens"]) -> "TokenDomain":
        """Points on an interval with the weights of the trapezoidal rule,

            w_j = (x_{j+1} - x_{j-1}) / 2,   (x_j - x_{j-1}) / 2 at the end of an integral,

        of second order for smooth functions, in causal attention too.

        **Arguments:**

        - `points`: two or more, in increasing order, at any distances.

        **Raises:** `InputError` for fewer points or another order.
        """
        gaps = jnp.diff(points)
        in_order = not is_known(points) or (np.diff(np.asarray(points)) > 0).all()
        if not gaps.size or not in_order:
            raise InputError(
                f"TokenDomain.trapezoid: {points.size} points; give two or more, each above "
                "the one before, for example jnp.linspace(0, 1, 65)."
            )
        before, after = (jnp.pad(gaps / 2, side) for side in ((1, 0), (0, 1)))
        # The integral that ends at the first point has no length; its mean is that point.
        ends = before.at[0].set(after[0])
        return cls(points[:, None], before + after, end_weights=ends)

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
        return None if self.weights is None else _log(self.weights)

    @property
    def log_end_weights(self) -> Float[Array, "*batch tokens"] | None:
        """The same for the end weights."""
        return None if self.end_weights is None else _log(self.end_weights)

    def first(self, tokens: int) -> "TokenDomain":
        """The first of its tokens, with their weights."""
        weights, ends = (
            None if x is None else x[..., :tokens] for x in (self.weights, self.end_weights)
        )
        return TokenDomain(self.points[:tokens], weights, end_weights=ends)

    def padded(self, mask: Bool[Array, "*batch tokens"]) -> "TokenDomain":
        """The domain without its padding: tokens where `mask` is `False` get weight 0, so
        that they do not contribute to integrals over Ω_x."""
        weights = jnp.ones_like(self.points[:, 0]) if self.weights is None else self.weights
        weights = jnp.broadcast_to(weights, jnp.broadcast_shapes(weights.shape, mask.shape))
        ends = self.end_weights
        ends = None if ends is None else jnp.where(mask, ends, 0)
        return TokenDomain(self.points, jnp.where(mask, weights, 0), self.grid, ends)


def _log(weights: Float[Array, "..."]) -> Float[Array, "..."]:
    """Not a number where a weight is negative: it must not pass for zero."""
    zero = weights == 0
    floor = jnp.finfo(weights.dtype).min / 4
    return jnp.where(zero, floor, jnp.log(jnp.where(zero, 1, weights)))
