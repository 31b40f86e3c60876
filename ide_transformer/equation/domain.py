"""The token domain Ω_x: points and quadrature weights."""

import dataclasses
import math
from typing import Annotated, Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ..arguments import (
    Bound,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    at_least,
    checked,
    is_known,
)
from ..errors import InputError
from . import rules
from .arrays import State
from .rules import Bounds


# The number of axes of each array if samples share the domain.
_SHARED_AXES = {"points": 2, "weights": 1, "ends": 2, "end_weights": 2}


_not_empty = Bound("nonempty", lambda points: points.size > 0)
_not_all_zero = Bound(
    "positive at one point or more", lambda w: w.ndim > 1 or not is_known(w) or np.any(w)
)
_increasing = Bound("increasing", lambda ends: ends[0] < ends[1])

Points: TypeAlias = Annotated[Float[Array, "*samples tokens dimension"], _not_empty]
Weights: TypeAlias = Annotated[Float[Array, "... tokens"], at_least(0), _not_all_zero] | None
EndWeights: TypeAlias = Annotated[Float[Array, "... ends tokens"], at_least(0)] | None
Interval: TypeAlias = Annotated[tuple[float, float], _increasing]


def _no_negative(weights: Weights) -> Weights:
    # A compiled program cannot raise for a negative weight, so it becomes NaN.
    return jnp.where(weights < 0, jnp.nan, weights) if isinstance(weights, Tracer) else weights


def _no_negative_ends(weights: EndWeights) -> EndWeights:
    return _no_negative(weights)


@checked
class TokenDomain(eqx.Module):
    """Points `x_j` of Ω_x and quadrature weights `w_j`:

        ∫_Ωx g(x') dx'  ≈  Σ_j w_j g(x_j).

    **Arguments:**

    - `points`: `[tokens, dimension]`. Text has dimension 1 and unit spacing, patches have 2.
      With leading axes each sample has its own points, and a model solves samples one by one.
    - `weights`: `[..., tokens]`, non-negative; leading axes are samples. `None` means equal
      weights, for which attention is exactly the softmax.
    - `grid`: the number of points along each axis of a lattice, the last axis fastest; `None`
      for other points. See `uniform` and `periodic`.
    - `spacing`: the distance of neighbours along each axis of a grid; `None` for points 0, 1,
      2, …. On such a line, causal attention skips blocks of later points.
    - `period`: the length of each periodic axis, `None` for an axis with boundaries; `None` if
      all axes have boundaries.
    - `ends`, `end_weights`: `[ends, tokens]` and `[..., ends, tokens]`: `end_weights[r, j]` is
      the weight of x_j in the integral up to `x = ends[r, j]`, used by causal attention. See
      `trapezoid` and `simpson`. `None` means `weights`.
    - `prefix`: the number of tokens before the grid, such as a class token.
    """

    points: Points
    weights: Weights = eqx.field(converter=_no_negative, default=None)
    grid: tuple[PositiveInt, ...] | None = eqx.field(static=True, default=None)
    spacing: tuple[PositiveFloat, ...] | None = eqx.field(static=True, default=None)
    period: tuple[PositiveFloat | None, ...] | None = eqx.field(static=True, default=None)
    ends: Float[Array, "ends tokens"] | None = None
    end_weights: EndWeights = eqx.field(converter=_no_negative_ends, default=None)
    prefix: NonNegativeInt = eqx.field(static=True, default=0)

    def __check_init__(self):
        num_points = self.num_tokens - self.prefix
        axes = {len(x) for x in (self.grid, self.spacing, self.period) if x is not None}
        size = num_points if self.grid is None else math.prod(self.grid)
        lacks_grid = self.prefix and self.grid is None
        not_shared = self.of_samples and self.grid is not None
        if lacks_grid or not_shared or axes - {self.dimension} or size != num_points:
            raise InputError(
                f"TokenDomain: grid={self.grid}, spacing={self.spacing}, period={self.period} "
                f"do not fit points {self.points.shape} after a prefix={self.prefix}; see "
                "TokenDomain.uniform."
            )
        if self.grid is not None:
            steps = np.array(self.steps)
            lengths = steps * self.grid
            # The first point follows the last one around a period.
            periods = [x or n for x, n in zip(self.period or lengths, lengths, strict=True)]
            fits = (np.abs(lengths - periods) <= 1e-3 * steps).all()
            if is_known(self.points):
                points = np.asarray(self.points)[self.prefix :]
                places = np.stack(np.unravel_index(np.arange(num_points), self.grid), axis=-1)
                # Coordinates are rounded in proportion to the largest.
                rounding = 8 * float(jnp.finfo(points.dtype).eps) * np.abs(points).max(axis=0)
                error = np.abs(points - points[:1] - places * steps).max(axis=0)
                fits &= (error <= 1e-3 * steps + rounding).all()
            if not fits:
                raise InputError(
                    f"TokenDomain: the points do not form grid={self.grid}, the last axis "
                    f"fastest, with steps {self.steps} and period={self.period}; set their "
                    "spacing, drop the last point of a circle, or drop grid."
                )
        has_ends, has_end_weights, has_weights = (
            x is not None for x in (self.ends, self.end_weights, self.weights)
        )
        is_complete = has_ends and has_end_weights and has_weights and not self.of_samples
        if (has_ends or has_end_weights) and not is_complete:
            raise InputError(
                "TokenDomain: pass ends, end_weights and weights together, for points [tokens, "
                "dimension]."
            )

    @classmethod
    @checked
    def uniform(cls, shape: PositiveInt | tuple[PositiveInt, ...]) -> "TokenDomain":
        """Equally weighted points `0, 1, 2, …` along each axis, the last axis fastest: text, or
        the rows and columns of patches."""
        return lattice(shape if isinstance(shape, tuple) else (shape,))

    @classmethod
    @checked
    def periodic(
        cls,
        shape: PositiveInt | tuple[PositiveInt, ...],
        length: PositiveFloat | tuple[PositiveFloat, ...] = 1.0,
    ) -> "TokenDomain":
        """Equally weighted points `0, L/n, 2L/n, …` along each axis of a torus: the trapezoidal
        rule, which converges faster than any power of n for smooth periodic functions.

        **Arguments:**

        - `shape`: n, for each axis.
        - `length`: L, for all axes or for each.
        """
        shape = shape if isinstance(shape, tuple) else (shape,)
        lengths = length if isinstance(length, tuple) else (length,) * len(shape)
        if len(lengths) != len(shape):
            raise InputError(
                f"TokenDomain.periodic: {length=}; pass one for each of {len(shape)} axes."
            )
        spacing = tuple(x / n for x, n in zip(lengths, shape, strict=True))
        return cls(lattice(shape, spacing).points, None, shape, spacing, lengths)

    @classmethod
    @checked
    def midpoint(cls, tokens: PositiveInt, interval: Interval = (0.0, 1.0)) -> "TokenDomain":
        """The midpoint rule: the middles of equal parts of an interval. Order 2."""
        lower, upper = interval
        length = (upper - lower) / tokens
        points = lower + length / 2 + lattice((tokens,), (length,)).points
        return cls(points, None, (tokens,), (length,))

    @classmethod
    @checked
    def trapezoid(cls, points: Float[ArrayLike, " tokens"]) -> "TokenDomain":
        """The trapezoidal rule on two or more increasing points,

            w_j = (x_{j+1} - x_{j-1}) / 2,   (x_j - x_{j-1}) / 2 at the end of an integral.

        Order 2, in causal attention too.
        """
        points = _compile_time_array(points)
        return cls(points[:, None], **rules.trapezoid(points)._asdict())

    @classmethod
    @checked
    def simpson(cls, points: Float[ArrayLike, " tokens"]) -> "TokenDomain":
        """Simpson's rule on three or more increasing points. No gap may be twice its neighbour,
        which would make a weight negative.

        Order 4 on points `φ(j/n)`, φ smooth, in causal attention too, except in the first gap,
        which has the trapezoidal rule."""
        points = _compile_time_array(points)
        return cls(points[:, None], **rules.simpson(points)._asdict())

    @classmethod
    @checked
    def gauss_legendre(
        cls, tokens: PositiveInt, interval: Interval = (0.0, 1.0)
    ) -> "TokenDomain":
        """The Gauss–Legendre rule, exact for polynomials of degree `2 tokens - 1`. It is for
        integrals over the whole interval, not for causal attention."""
        lower, upper = interval
        points, weights = rules.point_rule("gauss_legendre", tokens)
        length = upper - lower
        return cls(jnp.asarray(lower + length * points)[:, None], jnp.asarray(length * weights))

    @classmethod
    @checked
    def from_points(
        cls,
        points: Float[ArrayLike, "_ ..."],
        bounds: Bounds | None = None,
        period: tuple[PositiveFloat | None, ...] | None = None,
        mask: Bool[ArrayLike, "samples tokens"] | None = None,
    ) -> "TokenDomain":
        """Scattered points, weighted by the size of their Voronoi cells.

        **Arguments:**

        - `points`: `[tokens]` or `[tokens, dimension]`, dimension 1 to 3, in any order, all
          different; or `[samples, tokens, dimension]`, its own points for each sample.
        - `bounds`: lower and upper end of each axis; `None` for the range of the points.
        - `period`: the length of each periodic axis, `None` for an axis with boundaries.
        - `mask`: `False` at padding, whose weight is 0; needs points `[samples, …]`.
        """
        if np.ndim(points) > 2 or mask is not None:
            points, weights = rules.cells_of_samples(points, bounds, period, mask)
        else:
            weights = rules.cells(points, bounds, period)
            points = jnp.asarray(points).reshape(len(weights), -1)
        points = jnp.asarray(points)
        return cls(points, jnp.asarray(weights, points.dtype), period=period)

    @property
    def num_tokens(self) -> int:
        return self.points.shape[-2]

    @property
    def dimension(self) -> int:
        return self.points.shape[-1]

    @property
    def of_samples(self) -> bool:
        """Whether each sample has its own points."""
        return self.points.ndim > 2

    @property
    def consecutive(self) -> bool:
        """Whether the points are 0, 1, 2, … on a line."""
        is_line = self.grid is not None and len(self.grid) == 1 and not self.prefix
        return is_line and self.spacing is None

    @property
    def steps(self) -> tuple[float, ...]:
        """The distance of neighbours along each axis."""
        return (1.0,) * self.dimension if self.spacing is None else self.spacing

    @property
    def without_prefix(self) -> "TokenDomain":
        """The domain of the grid alone."""
        weights = None if self.weights is None else self.weights[..., self.prefix :]
        points = self.points[self.prefix :]
        return TokenDomain(points, weights, self.grid, self.spacing, self.period)

    @property
    def positions(self) -> Float[Array, " tokens"]:
        """The coordinate of each token on a line."""
        if self.period is not None or self.dimension != 1:
            kind = f"of dimension {self.dimension}" if self.period is None else "periodic"
            raise InputError(
                f"TokenDomain: it is {kind}, so tokens have no order for causal attention, "
                "rotary positions and relative biases; use LinearBias, which needs none."
            )
        return self.points[..., 0]

    @checked
    def product(self, other: "TokenDomain") -> "TokenDomain":
        """All pairs of points of two domains, the second faster, weighted by the product of
        their weights."""
        first, second = np.indices((self.num_tokens, other.num_tokens)).reshape(2, -1)
        points = jnp.concatenate([self.points[first], other.points[second]], axis=1)
        weights = None
        if self.weights is not None or other.weights is not None:
            factors = self._point_weights[..., first], other._point_weights[..., second]
            weights = jnp.multiply(*jnp.broadcast_arrays(*factors))
        period = None
        if self.period is not None or other.period is not None:
            period = self.period or (None,) * self.dimension
            period += other.period or (None,) * other.dimension
        if self.grid is None or other.grid is None or self.prefix or other.prefix:
            return TokenDomain(points, weights, period=period)
        spacing = self.steps + other.steps
        spacing = None if spacing == (1.0,) * len(spacing) else spacing
        return TokenDomain(points, weights, self.grid + other.grid, spacing, period)

    @checked
    def with_queries(
        self, points: Float[ArrayLike, "*samples queries dimension"]
    ) -> "TokenDomain":
        """Appends points of weight zero. They see other tokens but are not seen, so their state
        is the solution between tokens. The result is not a grid. Samples with their own points
        may have their own queries."""
        points = jnp.asarray(points, self.points.dtype)
        if self.end_weights is not None:
            raise InputError("TokenDomain.with_queries: the domain must have no end_weights.")
        weights = self._point_weights
        weights = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, points.shape[-2])])
        points = jnp.broadcast_to(points, (*self.points.shape[:-2], *points.shape[-2:]))
        points = jnp.concatenate([self.points, points], axis=-2)
        return TokenDomain(points, weights, period=self.period)

    @property
    def _point_weights(self) -> Float[Array, "*batch tokens"]:
        """The weights, or the size of a cell if they are equal."""
        cell = math.prod(self.steps)
        return (
            jnp.full_like(self.points[..., 0], cell) if self.weights is None else self.weights
        )

    @property
    def shares(self) -> Float[Array, "*batch tokens"]:
        """The weights divided by their sum; zero if all tokens are padding."""
        if self.weights is None:
            return jnp.full(self.num_tokens, 1 / self.num_tokens)
        total = jnp.sum(self.weights, axis=-1, keepdims=True)
        return self.weights / jnp.where(total == 0, 1, total)

    def mean(self, v: State) -> Float[Array, "*batch features"]:
        """`1/|Ω_x| ∫_Ωx v dx`."""
        return jnp.sum(_along(self.shares, v) * v, axis=-2)

    @property
    def in_order(self) -> bool:
        """Whether the points are known to increase along a line."""
        if self.grid is not None and not self.prefix:
            return self.dimension == 1
        if self.dimension != 1 or not is_known(self.points):
            return False
        return bool((np.diff(np.asarray(self.points)[:, 0]) > 0).all())

    def integral_up_to(self, v: State) -> State:
        """`∫_{x' ≤ x} v dx'` at each point x, with the end weights if there are any."""
        x = self.positions
        if self.weights is None and self.dimension == 1:
            v = self.steps[0] * v
        if self.in_order:
            return _integrals_up_to(self.weights, self.end_weights, v)
        order = jnp.argsort(x)
        weights, end_weights = jax.tree.map(
            lambda w: jnp.take(w, order, axis=-1), (self.weights, self.end_weights)
        )
        integrals = _integrals_up_to(weights, end_weights, jnp.take(v, order, axis=-2))
        # Points at the same place see each other.
        last = jnp.searchsorted(x[order], x, side="right") - 1
        return jnp.take(integrals, last, axis=-2)

    def first(self, tokens: int) -> "TokenDomain":
        """The domain of the first tokens."""
        arrays = self.weights, self.ends, self.end_weights
        weights, ends, end_weights = jax.tree.map(lambda x: x[..., :tokens], arrays)
        points = self.points[:tokens]
        return TokenDomain(points, weights, None, self.spacing, None, ends, end_weights)

    @checked
    def padded(self, mask: Bool[ArrayLike, "*batch tokens"]) -> "TokenDomain":
        """Sets weights to 0 where `mask` is `False`, so that integrals skip these tokens."""
        mask = jnp.asarray(mask)
        weights = self._point_weights
        shape = jnp.broadcast_shapes(weights.shape, mask.shape)
        weights = jnp.where(mask, jnp.broadcast_to(weights, shape), 0)
        ends = self.end_weights
        ends = None if ends is None else jnp.where(mask[..., None, :], ends, 0)
        return dataclasses.replace(self, weights=weights, end_weights=ends)


def lattice(grid: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> TokenDomain:
    """A grid that begins at zero, with points known at compile time."""
    indices = np.indices(grid).reshape(len(grid), -1).T
    spacing = None if spacing is None or set(spacing) == {1} else spacing
    with jax.ensure_compile_time_eval():
        points = jnp.asarray(indices, jnp.result_type(float))
        points = points if spacing is None else points * jnp.asarray(spacing)[None]
    return TokenDomain(points, None, grid, spacing)


def grid_of(name: str, domain: TokenDomain) -> tuple[int, ...]:
    """The number of points along each axis. Raises `InputError`, which begins with `name`, if
    the domain is not a plain grid."""
    if domain.grid is None or domain.weights is not None or domain.prefix:
        raise InputError(
            f"{name} needs tokens at equal distances on a grid, without weights, padding or a "
            "class token; use TokenDomain.uniform, periodic or midpoint."
        )
    return domain.grid


def by_samples(tree: PyTree, axes: int = 1) -> PyTree[bool]:
    """Marks the arrays that have `axes` axes of samples: all but shared arrays of domains."""

    def mark(part: Any) -> Any:
        if not isinstance(part, TokenDomain):
            return True
        return jax.tree.map_with_path(
            lambda path, x: x.ndim >= _SHARED_AXES[path[-1].name] + axes, part
        )

    return jax.tree.map(mark, tree, is_leaf=lambda x: isinstance(x, TokenDomain))


def _compile_time_array(points: ArrayLike) -> Array:
    """A JAX array whose values can be read even while a program is compiled."""
    with jax.ensure_compile_time_eval():
        return jnp.asarray(points)


def _along(weights: Array, v: Array) -> Array:
    return jnp.broadcast_to(weights.astype(v.dtype)[..., None], v.shape)


def _integrals_up_to(weights: Array | None, end_weights: Array | None, v: Array) -> Array:
    if weights is None:
        return jnp.cumsum(v, axis=-2)
    inner = jnp.cumsum(_along(weights, v) * v, axis=-2)
    if end_weights is None:
        return inner
    lags = end_weights.shape[-2]
    total = _shift_later(inner, lags)
    for lag in range(lags):
        total += _shift_later(_along(end_weights[..., lag, :], v) * v, lag)
    return total


def _shift_later(v: Array, tokens: int) -> Array:
    zeros = jnp.zeros_like(v[..., :tokens, :])
    return jnp.concatenate([zeros, v], axis=-2)[..., : v.shape[-2], :]
