"""Functions as samples: their values and points, and the parts of the data."""

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


# The number of points from which computing their cells shows a progress bar.
_MANY = 50_000


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionData:
    """The samples of one part of the data.

    - `columns`: arrays by name, `[samples, …]`, in float32 or int32.
    - `spans`: the axes of the points in each column of functions. Other columns have no points.
    - `points`: `[tokens, dimension]` if samples share them, or else `[samples, tokens,
      dimension]`; `None` for the grid of the model.
    - `weights`: of the points in integrals, `[tokens]` or `[samples, tokens]`.
    - `lengths`: the number of points to which each sample is padded; `None` for shared points.
      Padding is at the end, with values 0 and weight 0 at the first point.
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

        - `points`: also `[tokens]`, points on a line that samples share.
        - `weights`: default: the sizes of the Voronoi cells in the unit cube.
        - `mask`: `[samples, tokens]`, `False` at padding, anywhere in a sample.
        - `prefix`: of the names of arrays in errors, such as `validation_`.

        **Raises:** `InputError` for shapes that do not fit, samples without a point, points
        outside of [0, 1], and equal points in a sample.
        """
        first, values = next(iter(columns.items()))
        spans = {name: span for name, span in spans.items() if name in columns}
        for name, x in columns.items():
            span = spans.get(name)
            fits = span is None or (
                x.shape[span] == values.shape[spans[first]] and x.ndim <= span.stop + 1
            )
            if len(x) != len(values) or not fits:
                raise InputError(
                    f"{prefix}{name} are {[*x.shape]}, and {prefix}{first} {[*values.shape]}; "
                    "pass as many samples, and functions at the same points."
                )
        is_shared = points is None or points.ndim != 3
        if (points is None and weights is not None) or (is_shared and mask is not None):
            raise InputError(
                f"{prefix}weights belong to points, and a mask to points of each sample's own; "
                f"pass {prefix}points too, [samples, tokens, dimension] for a mask, or drop "
                "them."
            )
        if points is None:
            checked = {name: finite_numbers(prefix + name, x) for name, x in columns.items()}
            return cls(checked, spans)
        # Shared points become the points of one sample.
        all_points = points[:, None] if points.ndim == 1 else points
        if is_shared:
            all_points = all_points[None]
            weights = None if weights is None else weights[None]
        tokens = all_points.shape[:2]
        fits = all_points.ndim == 3 and tokens[0] == (1 if is_shared else len(values))
        at_each = {"weights": weights, "mask": mask}
        wrong = [x for x in spans if not fits or columns[x].shape[spans[x]] != tokens[1:]]
        wrong += [name for name, x in at_each.items() if x is not None and x.shape != tokens]
        if wrong:
            shape = {**columns, **at_each}[wrong[0]].shape
            raise InputError(
                f"{prefix}{wrong[0]} {[*shape]} do not fit {prefix}points {[*points.shape]}; "
                "pass a number for each of the points, [tokens, dimension], or each sample's "
                "own, [samples, tokens, dimension]."
            )
        real = np.ones(tokens, bool) if mask is None else mask.astype(bool)
        lengths = real.sum(axis=1)
        order = np.argsort(~real, axis=1, kind="stable")[:, : lengths.max(initial=1)]
        real = np.take_along_axis(real, order, axis=1)

        def sort(name: str, x: np.ndarray, axis: int = 1) -> np.ndarray:
            """Moves the padding of an array to the end, as zeros."""
            if mask is not None:
                other_axes = [i for i in range(1, x.ndim) if i != axis]
                x = np.take_along_axis(x, np.expand_dims(order, other_axes), axis)
                x = np.where(np.expand_dims(real, other_axes), x, 0)
            return finite_numbers(prefix + name, x)

        checked = {
            name: sort(name, x, spans[name].start)
            if name in spans
            else finite_numbers(prefix + name, x)
            for name, x in columns.items()
        }
        all_points = sort("points", all_points).astype(np.float32)
        if all_points.min() < 0 or all_points.max() > 1:
            raise InputError(
                f"{prefix}points reach from {all_points.min():g} to {all_points.max():g}; "
                "scale each axis to [0, 1]."
            )
        all_points = np.where(real[..., None], all_points, all_points[:, :1])
        period = (1.0,) * all_points.shape[2] if grid == "periodic" else None
        if weights is None:
            with at(f"{prefix}points"):
                weights = _cell_sizes(all_points, real, period)
        else:
            weights = sort("weights", weights).astype(np.float32)
        wrong = (weights < 0).any(axis=1) | ~weights.any(axis=1)
        if wrong.any():
            raise InputError(
                f"{prefix}weights of sample {np.argmax(wrong)} are negative, or zero at all of "
                "its points; pass positive weights, and drop samples that are only padding."
            )
        if is_shared:
            return cls(checked, spans, all_points[0], weights[0], None, period)
        return cls(checked, spans, all_points, weights, lengths.astype(np.int32), period)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def tokens(self) -> int:
        """The number of points of a sample, or its mean over samples."""
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
        """Selects some of the samples."""
        columns = {name: x[samples] for name, x in self.columns.items()}
        names = () if self.lengths is None else ("points", "weights", "lengths")
        changes: dict[str, Any] = {name: getattr(self, name)[samples] for name in names}
        return dataclasses.replace(self, columns=columns, **changes)

    def coarser(self, tokens: int | tuple[int, ...], grid: str) -> "FunctionData":
        """The functions on a grid with fewer points along each axis: on a "periodic" grid a
        subset of their points, on a "midpoint" grid means of neighbours.

        **Raises:** `InputError` for functions on other points.
        """
        axes = self._axes if self.spans and self.points is None else ()
        fewer = tokens if isinstance(tokens, tuple) else (tokens,) * len(axes)
        fits = axes and len(fewer) == len(axes) and not any(map(op.mod, axes, fewer))
        if grid not in ("periodic", "midpoint") or not fits:
            raise InputError(
                f"tokens={tokens}: must divide the points {axes} of a periodic or midpoint "
                "grid; for other points pass a file with them, data.path=…, or define "
                "with_tokens in a task of your own."
            )
        columns = dict(self.columns)
        for name in columns.keys() & self.spans:
            span = self.spans[name]
            x = columns[name]
            for axis, size in enumerate(fewer, span.start):
                split = size, x.shape[axis] // size
                x = x.reshape(*x.shape[:axis], *split, *x.shape[axis + 1 :])
                x = x.take(0, axis + 1) if grid == "periodic" else x.mean(axis + 1)
            columns[name] = x
        return dataclasses.replace(self, columns=columns)

    def statistics(self, name: str, *, channels: bool) -> Statistics:
        """The mean and standard deviation of a column, without padding."""
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
        # Far from `tiny`, so that squares which round to zero are negligible.
        wrong = (squares < 1e3 * limits.tiny * v[0].size) | (squares > limits.max)
        if wrong.any():
            raise InputError(
                f"{name} of {wrong.sum()} {part} samples have a norm of "
                f"{np.sqrt(squares[wrong][0]):.0e}, whose square is zero or not finite in "
                f"single precision, but a relative error needs it; scale all {name}, or drop "
                "these."
            )


def at_points(values: Any, domain: TokenDomain | None, axes: int = 1) -> Any:
    """Values `[samples, *points(, channels)]` as a `Field` on a domain, without padding beyond
    its points; unchanged without a domain. `axes`: how many axes the points have."""
    if domain is None:
        return values
    values = values.reshape(len(values), -1, *values.shape[1 + axes :])
    return Field(values[:, : domain.num_tokens], domain)


def build_parts(
    arrays: Mapping[str, Mapping[str, np.ndarray | None]],
    spans: Mapping[str, slice],
    grid: PointRule | None,
) -> dict[str, FunctionData]:
    """The data of each part, from its columns, `points`, `weights` and `mask`. A part without
    points has the points that all training samples share.

    **Raises:** `InputError` for a part with other columns, types or channels than the training
    part, or another kind of points.
    """
    training = arrays["training"]
    shared = training["points"]
    parts = {}
    for part, part_arrays in arrays.items():
        prefix = "" if part == "training" else f"{part}_"
        columns = dict(part_arrays)
        if columns["points"] is None and shared is not None and shared.ndim < 3:
            columns["points"] = shared
            if columns["weights"] is None:
                columns["weights"] = training["weights"]
        if prefix:
            _check_alike(part, columns, training, spans)
        domain = {name: columns.pop(name) for name in ("points", "weights", "mask")}
        functions = {name: x for name, x in columns.items() if x is not None}
        parts[part] = FunctionData.build(functions, spans, **domain, grid=grid, prefix=prefix)
    return parts


def _check_alike(
    part: str,
    columns: Mapping[str, np.ndarray | None],
    training: Mapping[str, np.ndarray | None],
    spans: Mapping[str, slice],
) -> None:
    def format_of(name: str, x: np.ndarray | None) -> tuple[Any, ...] | None:
        if x is None:
            return None
        if name == "points":
            return x.ndim == 3, 1 if x.ndim == 1 else x.shape[-1]
        # Functions may have another number of points.
        after_points = spans[name].stop if name in spans else 1
        return x.ndim, x.dtype.kind == "f", x.shape[after_points:]

    for name in columns.keys() - {"weights", "mask"}:
        arrays = columns[name], training[name]
        formats = [format_of(name, x) for x in arrays]
        if formats[0] != formats[1]:
            shapes = ["missing" if x is None else f"{x.dtype}{[*x.shape]}" for x in arrays]
            raise InputError(
                f"{part}_{name} are {shapes[0]}, and {name} {shapes[1]}; pass arrays of one "
                "type with the same channels to all parts, and points of one kind."
            )


def divide(
    parts: Mapping[str, FunctionData],
    fractions: Mapping[str, Any],
    groups: np.ndarray | None = None,
) -> dict[str, FunctionData]:
    """Draws the parts that are missing from the training samples, the same for every run. Pads
    samples with different points to the longest in their bucket.

    **Arguments:**

    - `fractions`: of the training samples, for each missing part.
    - `groups`: labels of training samples; equal ones stay in one part.

    **Raises:** `InputError` if a part to learn or to validate on is empty.
    """
    samples = parts["training"]
    labels = np.arange(len(samples))
    if groups is not None:
        _, labels = np.unique(groups, return_inverse=True)
    num_labels = int(labels.max(initial=-1)) + 1
    remaining = np.random.default_rng(0).permutation(num_labels)
    divided = {}
    for part in ("validation", "test"):
        if part in parts:
            divided[part] = parts[part]
        else:
            drawn, remaining = np.split(remaining, [round(fractions[part] * num_labels)])
            divided[part] = samples.take(np.isin(labels, drawn))
    divided["training"] = samples.take(np.isin(labels, remaining))
    sizes = {part: len(data) for part, data in divided.items()}
    if not sizes["validation"] or not (sizes["training"] or fractions.get("validation") == 1):
        in_groups = "" if groups is None else f" in {num_labels} groups"
        part_sizes = ", ".join(f"{size} for {part}" for part, size in sizes.items())
        raise InputError(
            f"{len(samples)} samples{in_groups} leave {part_sizes}; pass more, or other "
            "fractions (data.validation, data.test)."
        )
    if samples.lengths is None:
        return divided
    lengths = padded_lengths(np.concatenate([data.lengths for data in divided.values()]))
    part_lengths = np.split(lengths, np.cumsum([*sizes.values()])[:-1])
    # A part of its own may have room for fewer points.
    return {
        part: dataclasses.replace(data, lengths=np.minimum(longest, data.points.shape[1]))
        for (part, data), longest in zip(divided.items(), part_lengths, strict=True)
    }


def grid_like(points: np.ndarray) -> tuple[int, ...]:
    """The shape of a grid with about as many points as a sample."""
    dimension = 1 if points.ndim == 1 else points.shape[-1]
    num_points = points.shape[1] if points.ndim == 3 else len(points)
    return (round(num_points ** (1 / dimension)),) * dimension


def real_points(points: np.ndarray) -> np.ndarray:
    """The mask of real points `[samples, tokens, dimension]`; padding repeats the first."""
    real = (points != points[:, :1]).any(axis=-1)
    real[:, 0] = True
    return real


def mask_padding(columns: dict[str, np.ndarray | None]) -> None:
    """Replaces padding, where `points` of each sample's own are NaN, by zeros and a `mask`."""
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
            other_axes = tuple(i for i in range(1, x.ndim) if i != axis)
            columns[name] = np.where(np.expand_dims(real, other_axes), x, 0)
    if mask is None or mask.shape == real.shape:
        columns["mask"] = real


def check_numbers(name: str, x: np.ndarray) -> None:
    if x.dtype.kind not in "fiu" or not x.ndim or 0 in x.shape[1:]:
        raise InputError(
            f"{name} are {x.dtype}{[*x.shape]}; pass real numbers or integers, at least one "
            "for each sample."
        )


def finite_numbers(name: str, x: np.ndarray) -> np.ndarray:
    """Converts numbers to float32 or int32, if they fit and are finite."""
    check_numbers(name, x)
    with np.errstate(over="ignore"):
        converted = x.astype(np.float32 if x.dtype.kind == "f" else np.int32)
    wrong = ~np.isfinite(converted) if x.dtype.kind == "f" else converted != x
    if wrong.any():
        place = np.argwhere(wrong)[0].tolist()
        raise InputError(
            f"{name}: the number at {place} is {x[tuple(place)]}, which must be a finite "
            f"{converted.dtype}."
        )
    return converted


def _cell_sizes(
    points: np.ndarray, real: np.ndarray, period: tuple[float, ...] | None
) -> np.ndarray:
    """The size of the cell of each point, 0 at padding."""
    from rich.console import Console
    from rich.progress import track

    console: Any = Console(stderr=True)
    is_hidden = real.sum() < _MANY or not console.is_terminal
    progress = ft.partial(
        track, description="cells of the points", console=console, disable=is_hidden
    )
    box = ((0.0, 1.0),) * points.shape[-1]
    return rules.cells_of_samples(points, box, period, real, progress)[1].astype(np.float32)
