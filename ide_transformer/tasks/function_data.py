"""Functions as samples: their values, their points, and the parts they are divided into."""

import dataclasses
import functools as ft
import operator as op
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..equation import PointRule, TokenDomain, rules
from ..errors import InputError, at
from ..models import Field, Statistics, statistics
from .buckets import padded_lengths


# The number of points above which the computation of their cells shows its progress.
_MANY = 50_000


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionData:
    """The samples of one part of the data.

    - `columns`: arrays by name, `[samples, …]`, in float32 or int32.
    - `spans`: the axes of the points, for each column of functions. Other columns are of whole
      samples.
    - `points`: `[tokens, dimension]` of all samples, or `[samples, tokens, dimension]` of each
      sample's own; `None` for a grid, which the model has.
    - `weights`: of the points in integrals, `[tokens]` or `[samples, tokens]`.
    - `lengths`: to which samples with points of their own are padded; `None` for others.
      Padding stands at the end: it has weight 0, the place of the first point, and values 0.
    - `period`: of the points, see `TokenDomain`.
    """

    columns: Mapping[str, np.ndarray]
    spans: Mapping[str, slice]
    points: np.ndarray | None = None
    weights: np.ndarray | None = None
    lengths: np.ndarray | None = None
    period: tuple[float, ...] | None = None

    @classmethod
    def build(
        cls,
        columns: Mapping[str, np.ndarray],
        spans: Mapping[str, slice],
        points: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        *,
        grid: PointRule | None = None,
        prefix: str = "",
    ) -> "FunctionData":
        """Checks the arrays of a user, and moves padding to the end.

        **Arguments:**

        - `points`: also `[tokens]`, of all samples on a line.
        - `weights`: default: the sizes of the Voronoi cells in the unit cube.
        - `mask`: `[samples, tokens]`, `False` at padding, anywhere in a sample.
        - `prefix`: of the names of the arrays in errors, such as `validation_`.

        **Raises:** `InputError` for shapes that do not fit, samples without a point, points
        outside of [0, 1], and points that are twice in a sample.
        """
        first, values = next(iter(columns.items()))
        spans = {name: span for name, span in spans.items() if name in columns}
        for name, x in columns.items():
            if len(x) != len(values):
                raise InputError(
                    f"{prefix}{first} have {len(values)} samples, and {prefix}{name} {len(x)}."
                )
            span = spans.get(name)
            if span is not None and (
                x.shape[span] != values.shape[spans[first]] or x.ndim > span.stop + 1
            ):
                raise InputError(
                    f"{prefix}{name} are {[*x.shape]}, and {prefix}{first} {[*values.shape]}; "
                    "pass functions at the same points."
                )
        if points is None:
            if weights is not None or mask is not None:
                raise InputError(
                    f"{prefix}weights and a mask belong to points; pass {prefix}points too, or "
                    "drop them."
                )
            checked = {name: finite_numbers(prefix + name, x) for name, x in columns.items()}
            return cls(checked, spans)
        of_each = points.ndim == 3
        if mask is not None and not of_each:
            raise InputError(
                f"{prefix}mask belongs to points of each sample's own; drop it, or pass "
                f"{prefix}points [samples, tokens, dimension]."
            )
        placed = points[:, None] if points.ndim == 1 else points
        if not of_each:
            placed = placed[None]
            weights = None if weights is None else weights[None]
        tokens = placed.shape[:2]
        fitting = placed.ndim == 3 and tokens[0] == (len(values) if of_each else 1)
        sizes = {name: columns[name].shape[span] for name, span in spans.items()}
        if not fitting or any(size != tokens[1:] for size in sizes.values()):
            raise InputError(
                f"{prefix}{first} {[*values.shape]} do not fit {prefix}points "
                f"{[*points.shape]}; pass as many values as points [tokens, dimension], or "
                "points of each sample's own, [samples, tokens, dimension]."
            )
        for name, x in (("weights", weights), ("mask", mask)):
            if x is not None and x.shape != tokens:
                raise InputError(
                    f"{prefix}{name} are {[*x.shape]}; pass one number for each of "
                    f"{prefix}points, {[*points.shape[:-1]] or [*points.shape]}."
                )
        real = np.ones(tokens, bool) if mask is None else mask.astype(bool)
        lengths = real.sum(axis=1)
        if not lengths.all():
            raise InputError(
                f"{prefix}points: sample {np.argmin(lengths)} has only padding; leave it out."
            )
        order = np.argsort(~real, axis=1, kind="stable")[:, : lengths.max(initial=0)]
        real = np.take_along_axis(real, order, axis=1)

        def sort(name: str, x: np.ndarray, axis: int = 1) -> np.ndarray:
            """An array with its padding at the end, as zeros."""
            if mask is not None:
                others = [i for i in range(1, x.ndim) if i != axis]
                x = np.take_along_axis(x, np.expand_dims(order, others), axis)
                x = np.where(np.expand_dims(real, others), x, 0)
            return finite_numbers(prefix + name, x)

        checked = {
            name: sort(name, x, spans[name].start)
            if name in spans
            else finite_numbers(prefix + name, x)
            for name, x in columns.items()
        }
        placed = sort("points", placed).astype(np.float32)
        _check_in_unit_cube(f"{prefix}points", placed)
        placed = np.where(real[..., None], placed, placed[:, :1])
        period = (1.0,) * placed.shape[2] if grid == "periodic" else None
        if weights is None:
            with at(f"{prefix}points"):
                weights = _cells(placed, real, period)
        else:
            weights = sort("weights", weights).astype(np.float32)
        wrong = (weights < 0).any(axis=1) | ~weights.any(axis=1)
        if wrong.any():
            raise InputError(
                f"{prefix}weights of sample {np.argmax(wrong)} are negative or all zero; pass "
                "positive weights."
            )
        if not of_each:
            return cls(checked, spans, placed[0], weights[0], None, period)
        return cls(checked, spans, placed, weights, lengths.astype(np.int32), period)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def tokens(self) -> int:
        """The number of points of a sample, or its mean."""
        if self.lengths is not None:
            return round(self.lengths.mean())
        return int(np.prod(self._axes))

    @property
    def _axes(self) -> tuple[int, ...]:
        name, span = next(iter(self.spans.items()))
        return self.columns[name].shape[span]

    def domain(self, samples: Any) -> TokenDomain | None:
        """The points of these samples, padded to the longest; `None` for a grid."""
        if self.points is None or self.weights is None:
            return None
        points = self.points
        weights = self.weights
        if self.lengths is not None:
            longest = int(self.lengths[samples].max())
            points = points[samples, :longest]
            weights = weights[samples, :longest]
        return TokenDomain(jnp.asarray(points), jnp.asarray(weights), period=self.period)

    def take(self, samples: np.ndarray) -> "FunctionData":
        """Some of the samples."""
        columns = {name: x[samples] for name, x in self.columns.items()}
        of_each = () if self.lengths is None else ("points", "weights", "lengths")
        changed: dict[str, Any] = {name: getattr(self, name)[samples] for name in of_each}
        return dataclasses.replace(self, columns=columns, **changed)

    def coarser(self, tokens: int | tuple[int, ...], grid: str) -> "FunctionData":
        """Functions on a grid with fewer points along each axis: a subset of the points of a
        "periodic" grid, means of neighbours on a "midpoint" grid.

        **Raises:** `InputError` for other functions.
        """
        axes = self._axes if self.spans and self.points is None else ()
        fewer = tokens if isinstance(tokens, tuple) else (tokens,) * len(axes)
        fits = axes and len(fewer) == len(axes) and not any(map(op.mod, axes, fewer))
        if grid not in ("periodic", "midpoint") or not fits:
            raise InputError(
                f"tokens={tokens}: only functions on a periodic or midpoint grid have coarser "
                f"ones, whose points divide theirs, {axes}; for others evaluate on a file with "
                "these points, data.path=…, or write a task with with_tokens."
            )
        columns = dict(self.columns)
        for name in columns.keys() & self.spans:
            span = self.spans[name]
            x = columns[name]
            for axis, number in enumerate(fewer, span.start):
                split = number, x.shape[axis] // number
                x = x.reshape(*x.shape[:axis], *split, *x.shape[axis + 1 :])
                x = x.take(0, axis + 1) if grid == "periodic" else x.mean(axis + 1)
            columns[name] = x
        return dataclasses.replace(self, columns=columns)

    def statistics(self, name: str, *, channels: bool) -> Statistics:
        """The statistics of a column, without padding."""
        values = self.columns[name]
        if self.lengths is not None and name in self.spans:
            assert self.weights is not None
            values = np.moveaxis(values, self.spans[name].start, 1)[self.weights > 0]
        return statistics(values, channels=channels, name=name)

    def check_norms(self, part: str, name: str, functions: np.ndarray) -> None:
        """**Raises:** `InputError` for functions `[samples, tokens, …]` whose norm, as
        `RelativeError` computes it, is 0 or not finite."""
        if not len(functions):
            return
        limits = np.finfo(np.float32)
        v = functions.reshape(*functions.shape[:2], -1)
        shares = np.ones(1)
        if self.weights is not None:
            shares = self.weights / self.weights.sum(axis=-1, keepdims=True)
        shares = np.broadcast_to(shares, v.shape[:2])
        squares = np.einsum("npc,npc,np->n", v, v, shares, dtype=float)
        # Squares that are rounded to zero have to be small beside the others.
        wrong = (squares < 1e3 * limits.tiny * v[0].size) | (squares > limits.max)
        if wrong.any():
            raise InputError(
                f"{name} of {wrong.sum()} {part} samples have a norm of "
                f"{np.sqrt(squares[wrong][0]):.0e}, whose square is zero or not finite in "
                f"single precision; a relative error needs it. Scale all {name}, or leave "
                "these out."
            )


def placed(values: Any, domain: TokenDomain | None, axes: int = 1) -> Any:
    """Values `[samples, *points(, channels)]` as a `Field` at the points of a domain, without
    the padding beyond them. Without a domain they stay on the grid of a model. `axes`: how many
    axes the points have."""
    if domain is None:
        return values
    values = values.reshape(len(values), -1, *values.shape[1 + axes :])
    return Field(values[:, : domain.num_tokens], domain)


def build_parts(
    arrays: Mapping[str, Mapping[str, np.ndarray | None]],
    spans: Mapping[str, slice],
    grid: PointRule | None,
) -> dict[str, FunctionData]:
    """The parts that a user passed, from the columns, `points`, `weights` and `mask` of each by
    name. A part without points has those that all training samples share.

    **Raises:** `InputError` for a part with other columns, types or channels than the training
    part, or another kind of points.
    """
    training = arrays["training"]
    shared = training["points"]
    parts = {}
    for part, passed in arrays.items():
        prefix = "" if part == "training" else f"{part}_"
        passed = dict(passed)
        if passed["points"] is None and shared is not None and shared.ndim < 3:
            passed["points"] = shared
            if passed["weights"] is None:
                passed["weights"] = training["weights"]
        if prefix:
            _check_alike(part, passed, training, spans)
        at_points = [passed.pop(name) for name in ("points", "weights", "mask")]
        columns = {name: x for name, x in passed.items() if x is not None}
        parts[part] = FunctionData.build(columns, spans, *at_points, grid=grid, prefix=prefix)
    return parts


def _check_alike(
    part: str,
    passed: Mapping[str, np.ndarray | None],
    training: Mapping[str, np.ndarray | None],
    spans: Mapping[str, slice],
) -> None:
    if _kind(passed["points"]) != _kind(training["points"]):
        raise InputError(
            f"{part}_points are {_kind(passed['points'])}, and those of the training part "
            f"{_kind(training['points'])}; pass points of one kind to all parts."
        )
    for name in passed.keys() - {"points", "weights", "mask"}:
        x = passed[name]
        like = training[name]
        if x is None or like is None:
            if x is not like:
                missing = f"{part}_{name}" if x is None else name
                raise InputError(
                    f"{missing} is missing, which another part has; pass {name} to all parts."
                )
            continue
        # Functions may have another number of points.
        span = spans.get(name)
        ends = [y.shape[1:] if span is None else y.shape[span.stop :] for y in (x, like)]
        kinds = ["f" if y.dtype.kind == "f" else "i" for y in (x, like)]
        if x.ndim != like.ndim or ends[0] != ends[1] or kinds[0] != kinds[1]:
            raise InputError(
                f"{part}_{name} are {x.dtype}{[*x.shape]}, and {name} {like.dtype}"
                f"{[*like.shape]}; pass samples of the same type and channels to all parts."
            )


def _kind(points: np.ndarray | None) -> str:
    if points is None:
        return "missing"
    dimension = 1 if points.ndim == 1 else points.shape[-1]
    of = "each sample's own" if points.ndim == 3 else "all samples"
    return f"of {of} in dimension {dimension}"


def divide(
    parts: Mapping[str, FunctionData],
    fractions: Mapping[str, float],
    groups: np.ndarray | None = None,
) -> dict[str, FunctionData]:
    """Draws further parts from the training samples, the same for every run. Samples with
    points of their own are padded to the longest in their bucket.

    **Arguments:**

    - `fractions`: of each part to draw.
    - `groups`: labels, equal for training samples that stay in one part.

    **Raises:** `InputError` if there is nothing to learn, or nothing to validate on.
    """
    whole = parts["training"]
    labels = np.arange(len(whole))
    if groups is not None:
        _, labels = np.unique(groups, return_inverse=True)
    number = int(labels.max(initial=-1)) + 1
    left = np.random.default_rng(0).permutation(number)
    divided = {}
    for part in ("validation", "test"):
        if part in fractions:
            drawn, left = np.split(left, [round(fractions[part] * number)])
            divided[part] = whole.take(np.isin(labels, drawn))
        else:
            divided[part] = parts[part]
    divided["training"] = whole.take(np.isin(labels, left))
    sizes = {part: len(data) for part, data in divided.items()}
    if not sizes["validation"] or not (sizes["training"] or fractions.get("validation") == 1):
        of_groups = "" if groups is None else f" in {number} groups"
        left_for = ", ".join(f"{size} for {part}" for part, size in sizes.items())
        raise InputError(
            f"{len(whole)} samples{of_groups} leave {left_for}; pass more, or other fractions "
            "(data.validation, data.test)."
        )
    if whole.lengths is None:
        return divided
    lengths = padded_lengths(np.concatenate([data.lengths for data in divided.values()]))
    of_parts = np.split(lengths, np.cumsum([*sizes.values()])[:-1])
    # A part that was passed may have room for fewer points.
    return {
        part: dataclasses.replace(data, lengths=np.minimum(longer, data.points.shape[1]))
        for (part, data), longer in zip(divided.items(), of_parts, strict=True)
    }


def grid_like(points: np.ndarray) -> tuple[int, ...]:
    """The shape of a grid of about as many points as a sample has."""
    dimension = 1 if points.ndim == 1 else points.shape[-1]
    number = points.shape[1] if points.ndim == 3 else len(points)
    return (round(number ** (1 / dimension)),) * dimension


def real_points(points: np.ndarray) -> np.ndarray:
    """Which points `[samples, tokens, dimension]` are no padding, which lies at the first."""
    real = (points != points[:, :1]).any(axis=-1)
    real[:, 0] = True
    return real


def mask_padding(columns: dict[str, np.ndarray | None]) -> None:
    """Adds a `mask` to the arrays of a part whose `points` are NaN where a sample has fewer,
    and puts zeros there."""
    points = columns["points"]
    if points is None or points.ndim != 3 or points.dtype.kind != "f":
        return
    real = np.asarray(~np.isnan(points).all(axis=-1))
    mask = columns["mask"]
    if mask is not None and mask.shape == real.shape:
        real &= mask.astype(bool)
    for name in columns.keys() - {"mask", "groups", "parameters", "times"}:
        x = columns[name]
        axis = 2 if name == "trajectories" else 1
        if x is not None and (len(x), *x.shape[axis : axis + 1]) == real.shape:
            others = tuple(i for i in range(1, x.ndim) if i != axis)
            columns[name] = np.where(np.expand_dims(real, others), x, 0)
    if mask is None or mask.shape == real.shape:
        columns["mask"] = real


def check_numbers(name: str, x: np.ndarray) -> None:
    if x.dtype.kind not in "fiu" or not x.ndim or 0 in x.shape[1:]:
        raise InputError(
            f"{name} are {x.dtype}{[*x.shape]}; give real numbers or integers, at least one of "
            "each sample."
        )


def finite_numbers(name: str, x: np.ndarray) -> np.ndarray:
    """An array of finite numbers, in float32 or int32."""
    check_numbers(name, x)
    with np.errstate(over="ignore"):
        changed = x.astype(np.float32 if x.dtype.kind == "f" else np.int32)
    wrong = ~np.isfinite(changed) if x.dtype.kind == "f" else changed != x
    if wrong.any():
        place = np.argwhere(wrong)[0].tolist()
        raise InputError(
            f"{name}: the number at {place} is {x[tuple(place)]}, which {changed.dtype} cannot "
            "hold."
        )
    return changed


def _check_in_unit_cube(name: str, points: np.ndarray) -> None:
    least = points.min()
    most = points.max()
    if least < 0 or most > 1:
        raise InputError(f"{name} reach from {least:g} to {most:g}; scale each axis to [0, 1].")


def _cells(
    points: np.ndarray, real: np.ndarray, period: tuple[float, ...] | None
) -> np.ndarray:
    """The size of the cell of each point, 0 at padding."""
    from rich.console import Console
    from rich.progress import track

    console: Any = Console(stderr=True)
    hidden = real.sum() < _MANY or not console.is_terminal
    shown = ft.partial(
        track, description="cells of the points", console=console, disable=hidden
    )
    box = ((0.0, 1.0),) * points.shape[-1]
    return rules.cells_of_samples(points, box, period, real, shown)[1].astype(np.float32)
