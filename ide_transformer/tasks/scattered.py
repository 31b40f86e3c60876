"""Functions of which each sample is known at points of its own."""

import functools as ft
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..equation import TokenDomain, rules
from ..errors import InputError, at
from ..models import Field
from .buckets import padded_lengths
from .points import check_in_unit_cube, finite_numbers


# The number of points above which the computation of their cells shows its progress.
_MANY = 50_000


class Scattered(NamedTuple):
    """Samples at points of their own, padded to the most points. Padding stands at the end: it
    has weight 0 and the place of the first point, and the values 0.

    - `inputs`, `targets`: `[samples, tokens]`, or `[samples, tokens, channels]`; targets may
      also be of whole samples.
    - `points`, `weights`: `[samples, tokens, dimension]` and `[samples, tokens]`.
    - `lengths`: the number of points of each sample.
    """

    inputs: np.ndarray
    targets: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    lengths: np.ndarray

    def padded(self, tokens: int) -> "Scattered":
        """The samples with room for more points."""
        more = tokens - self.points.shape[1]

        def longer(x: np.ndarray) -> np.ndarray:
            if not self._at_points(x):
                return x
            return np.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2))

        first = np.repeat(self.points[:, :1], more, axis=1)
        points = np.concatenate([self.points, first], axis=1)
        weights = longer(self.weights)
        return Scattered(
            longer(self.inputs), longer(self.targets), points, weights, self.lengths
        )

    def fields(self, period: tuple[float, ...] | None) -> tuple[Field, Field | np.ndarray]:
        """Inputs and targets, padded to the longest of the `lengths`."""
        domain = domain_of(self.points, self.weights, self.lengths, period)
        length = domain.num_tokens
        inputs = Field(self.inputs[:, :length], domain)
        if not self._at_points(self.targets):
            return inputs, self.targets
        return inputs, Field(self.targets[:, :length], domain)

    def _at_points(self, x: np.ndarray) -> bool:
        return x.shape[:2] == self.weights.shape


def domain_of(
    points: np.ndarray,
    weights: np.ndarray,
    lengths: np.ndarray,
    period: tuple[float, ...] | None,
) -> TokenDomain:
    """The points of samples, padded to the longest of the `lengths`."""
    length = int(lengths.max())
    own = jnp.asarray(points[:, :length])
    return TokenDomain(own, jnp.asarray(weights[:, :length]), period=period)


def real_points(points: np.ndarray) -> np.ndarray:
    """Which points `[samples, tokens, dimension]` are no padding, which lies at the first."""
    there = (points != points[:, :1]).any(axis=-1)
    there[:, 0] = True
    return there


def scattered(
    inputs: np.ndarray,
    targets: np.ndarray,
    points: np.ndarray,
    weights: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    *,
    period: tuple[float, ...] | None = None,
    part: str = "",
    names: tuple[str, str] = ("inputs", "targets"),
) -> Scattered:
    """Samples as they are given, with padding where the `mask` is `False`, anywhere in a
    sample.

    **Arguments:**

    - `inputs`, `targets`, `points`: see `Scattered`.
    - `weights`: default: the sizes of the Voronoi cells in the unit cube.
    - `period`: see `TokenDomain`.
    - `part`, `names`: of the data, and of inputs and targets, for errors.

    **Raises:** `InputError` for shapes that do not fit, samples without a point, points outside
    of [0, 1], and points that are twice in a sample.
    """
    shape = points.shape[:2]
    of_inputs, of_targets = names
    named = {of_inputs: inputs, of_targets: targets, "points": points}
    named |= {} if weights is None else {"weights": weights}
    named |= {} if mask is None else {"mask": mask}
    whole = targets.shape[:2] != shape and targets.shape[:1] == shape[:1] and targets.ndim < 3
    for name, x in named.items():
        if name == of_targets and whole:
            continue
        if x.shape[:2] != shape or (name in ("weights", "mask") and x.ndim != 2):
            raise InputError(
                f"{part}{name} are {[*x.shape]} for points {[*points.shape]}; give each sample "
                "as many values as points, the axis of samples first."
            )
    there = np.ones(shape, bool) if mask is None else mask.astype(bool)
    lengths = there.sum(axis=1)
    if not lengths.all():
        raise InputError(
            f"{part}points: sample {np.argmin(lengths)} has only padding; leave it out."
        )
    order = np.argsort(~there, axis=1, kind="stable")[:, : lengths.max()]
    there = np.take_along_axis(there, order, axis=1)

    def first(name: str) -> np.ndarray:
        """An array with its padding at the end, as zeros."""
        x = named[name]
        further = tuple(range(2, x.ndim))
        x = np.take_along_axis(x, np.expand_dims(order, further), axis=1)
        x = np.where(np.expand_dims(there, further), x, 0)
        x = finite_numbers(f"{part}{name}", x)
        return x if name in names else x.astype(np.float32)

    x = first("points")
    check_in_unit_cube(f"{part}points", x)
    x = np.where(there[..., None], x, x[:, :1])
    if weights is None:
        with at(f"{part}points"):
            w = _cells(x, there, period)
    else:
        w = first("weights")
    wrong = (w < 0).any(axis=1) | ~w.any(axis=1)
    if wrong.any():
        raise InputError(
            f"{part}weights of sample {np.argmax(wrong)} are negative or all zero; give "
            "positive weights."
        )
    targets = finite_numbers(f"{part}{of_targets}", targets) if whole else first(of_targets)
    return Scattered(first(of_inputs), targets, x, w, lengths.astype(np.int32))


def with_mask(
    arrays: dict[str, np.ndarray],
    prefix: str,
    values: Sequence[str],
    over_time: Sequence[str] = (),
) -> None:
    """Adds a mask to the arrays of a file whose points are NaN where a sample has fewer, and
    puts zeros there. `prefix`: of the names of a part. `values` names arrays `[samples, tokens,
    …]`, and `over_time` arrays `[samples, times, tokens, …]`."""
    points = arrays.get(f"{prefix}points")
    if points is None or points.ndim != 3 or points.dtype.kind != "f":
        return
    there = np.asarray(~np.isnan(points).all(axis=-1))
    mask = arrays.setdefault(f"{prefix}mask", there)
    if mask.shape == there.shape:
        arrays[f"{prefix}mask"] = there = there & mask.astype(bool)
    axes = dict.fromkeys((*values, f"{prefix}points", f"{prefix}weights"), 1)
    for name, axis in (axes | dict.fromkeys(over_time, 2)).items():
        x = arrays.get(name)
        if x is not None and (len(x), *x.shape[axis : axis + 1]) == there.shape:
            further = tuple(i for i in range(1, x.ndim) if i != axis)
            arrays[name] = np.where(np.expand_dims(there, further), x, 0)


def scattered_parts(
    inputs: np.ndarray,
    targets: np.ndarray,
    points: np.ndarray,
    weights: np.ndarray | None,
    mask: np.ndarray | None,
    held_out: dict[str, Any],
    period: tuple[float, ...] | None,
) -> tuple[Scattered, dict[str, Any]]:
    """Pads the samples to divide, and the parts that are given, to one number of points. A
    given part has inputs, targets and points, and weights and a mask if the others do."""
    given = [x for x, y in (("weights", weights), ("mask", mask)) if y is not None]
    parts = {"": scattered(inputs, targets, points, weights, mask, period=period)}
    for part, arrays in held_out.items():
        if isinstance(arrays, tuple):
            if len(arrays) != 3 + len(given):
                names = ("inputs", "targets", "points", *given)
                wanted = ", ".join(f"{part}_{name}" for name in names)
                raise InputError(f"the {part} samples have points of their own; give {wanted}.")
            inputs, targets, points, *further = arrays
            also = dict(zip(given, further, strict=True))
            own = also.get("weights"), also.get("mask")
            name = f"{part}_"
            parts[part] = scattered(inputs, targets, points, *own, period=period, part=name)
    most = max(part.points.shape[1] for part in parts.values())
    parts = {name: part.padded(most) for name, part in parts.items()}
    return parts.pop(""), held_out | parts


def with_padded_lengths(data: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Replaces the last column of each part, the lengths of samples, by the lengths to which
    they are padded."""
    lengths = padded_lengths(np.concatenate([columns[-1] for columns in data.values()]))
    ends = np.cumsum([len(columns[-1]) for columns in data.values()])[:-1]
    of_parts = zip(data.items(), np.split(lengths, ends), strict=True)
    return {part: (*columns[:-1], own) for (part, columns), own in of_parts}


def _cells(
    points: np.ndarray, there: np.ndarray, period: tuple[float, ...] | None
) -> np.ndarray:
    """The size of the cell of each point, 0 at padding."""
    from rich.console import Console
    from rich.progress import track

    console: Any = Console(stderr=True)
    hidden = there.sum() < _MANY or not console.is_terminal
    shown = ft.partial(
        track, description="cells of the points", console=console, disable=hidden
    )
    box = ((0.0, 1.0),) * points.shape[-1]
    return rules.cells_of_samples(points, box, period, there, shown)[1].astype(np.float32)
