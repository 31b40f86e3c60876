"""Quadrature rules behind the constructors of `TokenDomain`."""

import functools as ft
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..arguments import is_known
from ..errors import InputError, at


# The lower and upper end of an axis, and of each axis.
Interval: TypeAlias = tuple[float, float]
Bounds: TypeAlias = tuple[Interval, ...]
# The length of each periodic axis, `None` for an axis with boundaries.
Period: TypeAlias = tuple[float | None, ...]
PointRule: TypeAlias = Literal["midpoint", "periodic", "gauss_legendre"]


def lagrange(points: np.ndarray, x: np.ndarray | float) -> np.ndarray:
    """The Lagrange factors at x of values at `points: [..., points]`."""
    factors = np.ones_like(points)
    for j, k in itertools.permutations(range(points.shape[-1]), 2):
        factors[..., j] *= (x - points[..., k]) / (points[..., j] - points[..., k])
    return factors


class Rule(NamedTuple):
    """Weights of `∫ g dx ≈ Σ_j w_j g(x_j)`. `end_weights[r, j]` is the weight of x_j in the
    integral up to `ends[r, j]`. This end is x_{j+r}, or beyond all points."""

    weights: Float[Array, " points"]
    end_weights: Float[Array, "ends points"]
    ends: Float[Array, "ends points"]


def trapezoid(x: Float[Array, " points"]) -> Rule:
    _check_points("trapezoid", x, 2)
    return _trapezoid(x)


# Compiled once, not operation by operation.
@jax.jit
def _trapezoid(x: Float[Array, " points"]) -> Rule:
    gaps = _gaps(x)
    before = jnp.pad(gaps / 2, (1, 0))
    after = jnp.pad(gaps / 2, (0, 1))
    # The integral up to the first point is empty; its mean is the value there.
    return Rule(before + after, before.at[0].set(after[0])[None], _ends(x, 1))


def simpson(x: Float[Array, " points"]) -> Rule:
    """Source: Cartwright, "Simpson's Rule Cumulative Integration", 2017."""
    _check_points("simpson", x, 3)
    rule = _simpson(x)
    if is_known(rule.weights) and min(map(np.min, (rule.weights, rule.end_weights))) < 0:
        raise InputError(
            "TokenDomain.simpson: a gap is twice its neighbour; use TokenDomain.trapezoid."
        )
    return rule


@jax.jit
def _simpson(x: Float[Array, " points"]) -> Rule:
    points = len(x)
    gaps = _gaps(x)
    a = gaps[0:-1:2]
    b = gaps[1::2]
    zeros = jnp.zeros(points, x.dtype)
    # Weights of whole pairs of gaps: in integrals that end there, and in longer ones.
    ended = zeros.at[2::2].add((a + b) / 6 * (2 - a / b))
    inner = ended.at[: 2 * len(b) : 2].add((a + b) / 6 * (2 - b / a))
    inner = inner.at[1 : 2 * len(b) : 2].add((a + b) ** 3 / (6 * a * b))
    # Weights of an unpaired last gap, from x_{i-1} to x_i: at x_i, x_{i-1} and x_{i-2}.
    a = gaps[:-1]
    b = gaps[1:]
    last_gap = (
        b * (2 * b + 3 * a) / (6 * (a + b)),
        b * (b + 3 * a) / (6 * a),
        -(b**3) / (6 * a * (a + b)),
    )
    rows = []
    for lag, (paired, before) in enumerate(((ended, zeros), (inner, ended), (inner, inner))):
        with_gap = before.at[2 - lag : points - lag].add(last_gap[lag])
        even = (jnp.arange(points) + lag) % 2 == 0
        rows.append(jnp.where(even, paired, with_gap))
    # The first gap has the trapezoidal rule. The mean of an empty integral is the value there.
    rows[0] = rows[0].at[:2].set(gaps[0] / 2)
    rows[1] = rows[1].at[0].set(gaps[0] / 2)
    weights = inner
    for lag, row in enumerate(rows):
        last = points - 1 - lag
        weights = weights.at[last].set(row[last])
    return Rule(weights, jnp.stack(rows), _ends(x, 3))


@ft.cache
def point_rule(name: PointRule, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in [0, 1] and weights of sum 1, both read-only."""
    if name == "gauss_legendre":
        x, weights = np.polynomial.legendre.leggauss(points)
        x = (x + 1) / 2
        weights = weights / 2
    else:
        x = (np.arange(points) + (0.5 if name == "midpoint" else 0.0)) / points
        weights = np.full(points, 1 / points)
    x.setflags(write=False)
    weights.setflags(write=False)
    return x, weights


def cells(points: ArrayLike, bounds: Bounds | None, period: Period | None) -> np.ndarray:
    """The sizes of the Voronoi cells of points in a box, which may have periodic axes."""
    x = np.asarray(points, float)
    x = x.reshape(len(x), -1) if x.size else x
    dimension = x.shape[-1]
    if not x.size or dimension > 3:
        raise InputError(
            f"TokenDomain.from_points: got points {x.shape}; pass at least one point, of "
            "dimension 1 to 3."
        )
    lengths = (None,) * dimension if period is None else period
    periodic = np.array([length is not None for length in lengths])
    sizes = np.array([length or 0.0 for length in lengths])
    fits = len(lengths) == dimension
    if fits and bounds is None:
        box = np.stack([x.min(0), np.where(periodic, x.min(0) + sizes, x.max(0))], -1)
    else:
        box = np.array(bounds)
    fits = fits and box.shape == (dimension, 2) and (box[:, 0] < box[:, 1]).all()
    if not fits or (periodic & (abs(np.ptp(box, axis=1) - sizes) > 1e-6 * sizes)).any():
        raise InputError(
            f"TokenDomain.from_points: bounds={box.tolist()} for points of dimension "
            f"{dimension} and {period=}; pass both ends of each axis, a period apart."
        )
    places = np.where(periodic & (x == box[:, 1]), box[:, 0], x)
    _, first = np.unique(places, axis=0, return_index=True)
    outside = np.flatnonzero(((x < box[:, 0]) | (x > box[:, 1])).any(axis=1))
    wrong = [*outside, *np.setdiff1d(np.arange(len(x)), first)]
    if wrong:
        raise InputError(
            f"TokenDomain.from_points: {x[wrong[0]]} occurs twice, or is outside "
            f"{box.tolist()}."
        )
    if dimension > 1:
        return _voronoi(x, box, periodic)
    order = np.argsort(x[:, 0])
    y = x[order, 0]
    length = np.ptp(box[0])
    if periodic[0]:
        y = np.concatenate([y[-1:] - length, y, y[:1] + length])
    borders = (y[1:] + y[:-1]) / 2
    if not periodic[0]:
        borders = np.concatenate([box[0, :1], borders, box[0, 1:]])
    weights = np.empty(len(x))
    weights[order] = np.diff(borders)
    return weights


def cells_of_samples(
    points: ArrayLike,
    bounds: Bounds | None,
    period: Period | None,
    mask: ArrayLike | None,
    shown: Callable[[range], Iterable[int]] = iter,
) -> tuple[np.ndarray, np.ndarray]:
    """Points `[samples, tokens, dimension]` and the sizes of their cells. Padding is moved to
    the first point of its sample and has size 0. `shown` iterates over the samples and can show
    progress."""
    x = np.array(points)
    real = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask)
    if x.ndim != 3 or real.shape != x.shape[:2]:
        raise InputError(
            f"TokenDomain.from_points: got points {x.shape} and a mask {real.shape}, expected "
            "points [samples, tokens, dimension] and mask [samples, tokens]."
        )
    sizes = np.zeros(real.shape)
    for sample in shown(range(len(x))):
        tokens = x[sample]
        is_real = real[sample]
        with at(f"sample {sample}"):
            if not is_real.any():
                raise InputError("all points are padding; drop the sample.")
            sizes[sample, is_real] = cells(tokens[is_real], bounds, period)
        tokens[~is_real] = tokens[is_real][0]
    return x, sizes


def _voronoi(x: np.ndarray, box: np.ndarray, periodic: np.ndarray) -> np.ndarray:
    """The sizes of Voronoi cells. Images of the points outside the box bound them."""
    lengths = np.ptp(box, axis=1)
    on_sides = np.abs(x[:, :, None] - box) <= 1e-7 * lengths[:, None]
    on_sides &= ~periodic[:, None]
    x = np.where(on_sides[..., 0], box[:, 0], np.where(on_sides[..., 1], box[:, 1], x))
    # Few images suffice if no circle through the corners of a cell reaches beyond them.
    reach = 4 * len(x) ** (-1 / x.shape[1])
    while True:
        points = _with_images(x, box, periodic, reach)
        sizes = _cells_of(points, len(x), box, reach * lengths)
        if sizes is not None or reach >= 2:
            break
        reach *= 2
    # The cell of a point on a side lies half beyond it.
    weights = np.zeros(len(x)) if sizes is None else sizes / 2 ** on_sides.sum((1, 2))
    volume = math.prod(lengths)
    if not abs(weights.sum() - volume) <= 1e-6 * volume:
        raise InputError(
            f"TokenDomain.from_points: the cells have volume {weights.sum():g}, expected the "
            f"bounds' {volume:g}; pass points that lie farther from each other."
        )
    return weights


def _with_images(
    x: np.ndarray, box: np.ndarray, periodic: np.ndarray, reach: float
) -> np.ndarray:
    """The points and their images up to `reach` lengths of the box beyond it: a period away, or
    mirrored once or twice at the sides."""
    for axis, (lower, upper) in enumerate(box):
        places = x[:, axis]
        length = upper - lower
        everywhere = np.full(len(x), True)
        # A point on a side is its own mirror image there.
        inside = (lower < places) & (places < upper)
        if periodic[axis]:
            images = [(places - length, everywhere), (places + length, everywhere)]
        else:
            images = [
                (2 * lower - places, inside),
                (2 * upper - places, inside),
                (places - 2 * length, everywhere),
                (places + 2 * length, everywhere),
            ]
        parts = [x]
        for image, allowed in images:
            near = np.maximum(lower - image, image - upper) <= reach * length
            part = x[allowed & near]
            part[:, axis] = image[allowed & near]
            parts.append(part)
        x = np.concatenate(parts)
    return x


def _cells_of(
    points: np.ndarray, num_cells: int, box: np.ndarray, reach: np.ndarray
) -> np.ndarray | None:
    """The sizes of the cells of the first points, as sums of pyramids with the point as apex.
    `None` if a cell is unbounded, or if points farther than `reach` from the box might change
    it. No image is farther than two lengths of the box."""
    from scipy.spatial import Voronoi

    diagram = Voronoi(points)
    is_side = (diagram.ridge_points < num_cells).any(axis=1)
    pairs = diagram.ridge_points[is_side]
    facets = [np.asarray(diagram.ridge_vertices[i]) for i in np.flatnonzero(is_side)]
    sizes = np.array([len(x) for x in facets])
    corners = np.concatenate(facets)
    if (corners < 0).any():
        return None
    places = diagram.vertices[corners]
    owner = np.repeat(pairs[:, 0], sizes)
    radius = np.linalg.norm(places - points[owner], axis=1)[:, None]
    beyond = np.maximum(box[:, 0] - places, places - box[:, 1]) + radius
    if (beyond > reach).any() and (reach < 2 * np.ptp(box, axis=1)).all():
        return None
    starts = np.cumsum(sizes) - sizes
    first = np.repeat(places[starts], sizes, axis=0)
    following = np.arange(len(places)) + 1
    following[starts + sizes - 1] = starts
    sides = places - first, places[following] - first
    if points.shape[1] == 2:
        areas = np.linalg.norm(places[starts + 1] - places[starts], axis=1)
    else:
        areas = np.linalg.norm(np.add.reduceat(np.cross(*sides), starts), axis=1) / 2
    heights = np.linalg.norm(np.subtract(*points[pairs].swapaxes(0, 1)), axis=1) / 2
    volumes = np.repeat(areas * heights / points.shape[1], 2)
    return np.bincount(pairs.ravel(), volumes, minlength=num_cells)[:num_cells]


def _check_points(name: str, x: Array, least: int) -> None:
    if x.size < least or (is_known(x) and (np.diff(np.asarray(x)) <= 0).any()):
        raise InputError(
            f"TokenDomain.{name}: got {x.size} points; pass at least {least}, increasing."
        )


def _gaps(x: Array) -> Array:
    """The distances of neighbours; NaN if traced points are not increasing."""
    gaps = jnp.diff(x)
    return jnp.where(gaps > 0, gaps, jnp.nan)


def _ends(x: Array, lags: int) -> Array:
    beyond = jnp.full(lags, 2 * x[-1] - x[0])
    later = jnp.concatenate([x, beyond])
    return jnp.stack([later[lag : lag + len(x)] for lag in range(lags)])
