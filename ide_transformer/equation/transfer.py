"""Maps functions from one token domain to another."""

import itertools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..arguments import checked
from ..errors import InputError
from .arrays import State
from .domain import TokenDomain
from .rules import lagrange


class TokenMap(eqx.Module):
    """A sparse linear map to functions on a domain of `tokens` points,

    v(x_i) = Σ_n values_n u(x'_{columns_n}),   n with rows_n = i.
    """

    rows: Int[Array, " entries"]
    columns: Int[Array, " entries"]
    values: Float[Array, " entries"]
    tokens: int = eqx.field(static=True)

    def __call__(self, u: State) -> Float[Array, "*batch new features"]:
        """`[..., tokens, features]` to `[..., new tokens, features]`."""
        parts = jnp.take(u, self.columns, axis=-2)
        parts = parts * jnp.broadcast_to(self.values.astype(u.dtype)[:, None], parts.shape)
        sums = jax.ops.segment_sum(jnp.moveaxis(parts, -2, 0), self.rows, self.tokens)
        return jnp.moveaxis(sums, 0, -2)


@checked
def interpolation(
    source: TokenDomain, target: TokenDomain, *, degree: Literal[1, 3] = 1
) -> TokenMap:
    """The map from functions on `source` to their values at the points of `target`.

    On lines, grids and around a period it interpolates by polynomials of `degree`, with order
    `degree + 1`. At scattered points of a plane or space it is linear in Delaunay simplices.

    **Arguments:**

    - `source`, `target`: their points must be known at compile time.
    - `degree`: 1, or 3 on lines and grids.

    **Raises:** `InputError` for points that do not fit, such as targets far outside the source.
    """
    has_samples = source.of_samples or target.of_samples
    has_prefix = source.prefix or target.prefix
    if has_samples or has_prefix or source.dimension != target.dimension:
        raise InputError(
            f"interpolation: got points {source.points.shape} and {target.points.shape}; pass "
            "two domains of one dimension, each of one sample and domain.without_prefix."
        )
    points = np.asarray(source.points, float)
    x = np.asarray(target.points, float)
    if source.dimension == 1:
        axes = [points[:, 0]]
    elif source.grid is not None:
        # Not np.unique, which counts rounded values twice.
        on_grid = points.reshape(*source.grid, -1)
        along = [np.moveaxis(on_grid[..., k], k, 0) for k in range(source.dimension)]
        axes = [x.reshape(len(x), -1)[:, 0] for x in along]
    elif degree == 1:
        return _in_simplices(points, x, source.period)
    else:
        raise InputError(f"interpolation: {degree=}; scattered points need degree=1.")
    period = source.period or (None,) * len(axes)
    places = zip(axes, x.T, period, strict=True)
    stencils = [_stencil(*place, degree) for place in places]
    strides = np.cumprod([1, *(len(axis) for axis in axes[:0:-1])])[::-1]
    columns = []
    values = []
    for taps in itertools.product(range(degree + 1), repeat=len(axes)):
        column = 0
        value = 1.0
        for (index, factors), tap, stride in zip(stencils, taps, strides, strict=True):
            column = column + index[:, tap] * stride
            value = value * factors[:, tap]
        columns.append(column)
        values.append(value)
    rows = [np.arange(target.num_tokens)] * len(columns)
    return _token_map(rows, columns, values, target.num_tokens)


def _stencil(
    axis: np.ndarray, x: np.ndarray, period: float | None, degree: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each x the indices of the nearest points of an axis, and the Lagrange factors."""
    if len(axis) <= degree:
        raise InputError(f"interpolation: {degree=} needs {degree + 1} points along each axis.")
    order = np.argsort(axis)
    points = axis[order]
    indices = np.arange(len(axis))
    if period is not None:
        x = points[0] + (x - points[0]) % period
        points = np.concatenate([points - period, points, points + period])
        indices = np.tile(indices, 3)
    gaps = np.diff(points)
    if not gaps.all():
        raise InputError(f"interpolation: two points are at {points[np.argmin(gaps)]:g}.")
    gap = gaps.max()
    if (far := x[(x < points[0] - gap) | (x > points[-1] + gap)]).size:
        raise InputError(
            f"interpolation: {far[0]} must be between {points[0]} and {points[-1]}."
        )
    first = np.searchsorted(points, x, side="right") - (degree + 1) // 2
    first = np.clip(first, 0, len(points) - degree - 1)
    index = first[:, None] + np.arange(degree + 1)
    return order[indices[index]], lagrange(points[index], x)


def _in_simplices(
    points: np.ndarray, x: np.ndarray, period: tuple[float | None, ...] | None
) -> TokenMap:
    """Barycentric coordinates; outside all simplices, the nearest point."""
    from scipy.spatial import Delaunay, KDTree, QhullError

    num_points, dimension = points.shape
    around = [
        (0,) if length is None else (-1, 0, 1) for length in period or (None,) * dimension
    ]
    lengths = np.array([length or 0.0 for length in period or (None,) * dimension])
    shifts = np.array(list(itertools.product(*around))) * lengths
    points = (points[None] + shifts[:, None]).reshape(-1, dimension)
    lower = points.reshape(-1, num_points, dimension).mean(axis=(0, 1)) - lengths / 2
    x = np.where(lengths > 0, lower + (x - lower) % np.where(lengths > 0, lengths, 1), x)
    try:
        simplices = Delaunay(points)
    except (QhullError, ValueError):
        raise InputError(
            f"interpolation: the source has {num_points} scattered points of dimension "
            f"{dimension}; pass at least {dimension + 1}, not all in one hyperplane, or a grid."
        ) from None
    simplex = simplices.find_simplex(x)
    inside = np.flatnonzero(simplex >= 0)
    outside = np.flatnonzero(simplex < 0)
    affine = simplices.transform[simplex[inside]]
    offsets = x[inside] - affine[:, dimension]
    first = np.einsum("nij,nj->ni", affine[:, :dimension], offsets)
    factors = np.concatenate([first, 1 - first.sum(1, keepdims=True)], axis=1)
    corners = simplices.simplices[simplex[inside]]
    nearest = KDTree(points).query(x[outside])[1] if len(outside) else np.empty(0, int)
    return _token_map(
        [np.repeat(inside, dimension + 1), outside],
        [corners.ravel() % num_points, nearest % num_points],
        [factors.ravel(), np.ones(len(outside))],
        len(x),
    )


def _token_map(rows: list, columns: list, values: list, tokens: int) -> TokenMap:
    with jax.ensure_compile_time_eval():
        row, column, value = (jnp.asarray(np.concatenate(x)) for x in (rows, columns, values))
    return TokenMap(row, column, value, tokens)
