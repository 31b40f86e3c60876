"""Maps between functions at points: on a grid, at random, or in clusters."""

import abc
import dataclasses
import operator as op
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
import numpy as np

from ..arguments import PositiveFloat, PositiveInt, checked
from ..equation import PointRule, TokenDomain
from ..errors import InputError
from ..models import Field, OperatorModel
from .losses import Batch, RelativeError
from .task import AbstractTask, Part, checked_dataclass, one_number, spread


PointSet: TypeAlias = Literal["grid", "random", "clustered"]
# Weights in integrals: the size of the cell of each point, or all equal, as in a softmax.
WeightRule: TypeAlias = Literal["quadrature", "equal"]

# Held-out samples that share random points, whatever the size of a batch.
_BLOCK = 16
# The first number of the seeds of held-out parts; training has 0.
_PARTS: dict[Part, int] = {"validation": 1, "test": 2}


class AbstractAtPoints(AbstractTask):
    """A map between functions, at points that may change with each batch."""

    model = OperatorModel
    loss = RelativeError()
    points: PointSet
    weights: WeightRule

    @abc.abstractmethod
    def samples_of(self, part: Part) -> np.ndarray:
        """The held-out samples as `functions` takes them, `[samples, …]`."""

    @abc.abstractmethod
    def functions(self, samples: np.ndarray, seed: tuple[int, ...]) -> Batch:
        """The functions of some samples at the points that a seed draws."""

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        chosen = self.samples_of(part)
        chosen = chosen[spread(len(chosen), samples)]
        length = len(chosen) if self.points == "grid" else _BLOCK
        for first in range(0, len(chosen), max(length, 1)):
            block = chosen[first : first + length]
            for start in range(0, len(block), size):
                yield self.functions(block[start : start + size], (_PARTS[part], first))


@checked_dataclass
class BurgersInterval(AbstractAtPoints):
    """The flow map of the viscous Burgers equation on [0, 1], `u(·, 0) ↦ u(·, time)`,

        u_t + (u²/2)_x = ν u_xx,   u = 0 at both ends,

    known exactly at any point: by Cole and Hopf `u = -2ν φ_x / φ`, and
    `φ = 1 + Σ_k c_k cos(kπx) exp(-νk²π²t)` solves the heat equation. Each batch draws new
    coefficients c, `Σ |c_k|` from 0.3 to 0.9. Inputs and targets are `u / 2ν`,
    `[samples, context]`, at the middles of equal intervals; at other points each is a `Field`,
    whose points all samples of a batch share.

    **Arguments:**

    - `context`: the number of points.
    - `viscosity`, `time`, `waves`: ν, the time of the flow, and the number of coefficients.
    - `held_out_samples`: samples for validation, and as many for the test.
    - `points`: "grid"; "random" for new points in each batch; "clustered" for half of them in a
      window of length 1/8.
    - `weights`: "quadrature" or "equal", in the integrals of the model. The relative error
      always takes quadrature.
    """

    context: PositiveInt
    viscosity: PositiveFloat = 0.05
    time: PositiveFloat = 0.2
    waves: PositiveInt = 4
    held_out_samples: PositiveInt = 512
    points: PointSet = "grid"
    weights: WeightRule = "quadrature"

    @property
    def sizes(self) -> dict[str, Any]:
        return {"points": self.context, "grid": "midpoint"}

    def with_tokens(self, tokens: int | tuple[int, int]) -> "BurgersInterval":
        return dataclasses.replace(self, context=one_number(tokens))

    def batch(self, step: int, size: int, seed: int) -> Batch:
        return self.functions(self._drawn(size, (0, seed, step)), (0, seed, step))

    def samples_of(self, part: Part) -> np.ndarray:
        return self._drawn(self.held_out_samples, (_PARTS[part],))

    def functions(self, samples: np.ndarray, seed: tuple[int, ...]) -> Batch:
        """The functions at the times 0 and `time` of coefficients c, `[samples, waves]`."""
        random = np.random.default_rng((*seed, 1))
        if self.points == "grid":
            x = (np.arange(self.context) + 0.5) / self.context
        elif self.points == "random":
            x = np.sort(random.random(self.context))
        else:
            half = -(-self.context // 2)
            anywhere = (np.arange(half) + random.random(half)) / half
            window = 7 / 8 * random.random() + random.random(self.context - half) / 8
            x = np.sort(np.concatenate([anywhere, window]))
        k = np.pi * np.arange(1, self.waves + 1)
        later = samples * np.exp(-self.viscosity * self.time * k**2)
        cos = np.cos(np.outer(k, x))
        sin = k[:, None] * np.sin(np.outer(k, x))
        before, after = (
            ((c @ sin) / (1 + c @ cos)).astype(np.float32) for c in (samples, later)
        )
        if self.points == "grid":
            return Batch(before, after)
        own, of_norms = domains(x[:, None], self.weights)
        return Batch(Field(before, own), Field(after, of_norms))

    def _drawn(self, number: int, seed: tuple[int, ...]) -> np.ndarray:
        random = np.random.default_rng(seed)
        c = random.normal(size=(number, self.waves))
        size = random.uniform(0.3, 0.9, size=(number, 1))
        return size * c / np.abs(c).sum(1, keepdims=True)


def domains(
    points: np.ndarray, weights: WeightRule, period: tuple[float | None, ...] | None = None
) -> tuple[TokenDomain, TokenDomain]:
    """Points of the unit cube as two domains: for a model, with the chosen weights, and for
    norms of functions, with quadrature weights."""
    points = points.astype(np.float32)
    whole = TokenDomain.from_points(points, ((0.0, 1.0),) * points.shape[1], period)
    chosen = whole.weights if weights == "quadrature" else None
    return TokenDomain(whole.points, chosen, period=period), whole


def domains_at(
    points: np.ndarray, weights: np.ndarray | None, axes: tuple[int, ...], grid: PointRule
) -> tuple[tuple[TokenDomain, TokenDomain], tuple[int, ...]]:
    """The `domains` of functions that are known at these points, and the shape of a grid of
    about as many points. `axes` is the shape of the values of a sample."""
    if points.ndim > 2 or axes != (len(points),):
        raise InputError(
            f"points {[*points.shape]} do not fit the values {[*axes]} of a sample; give "
            "points [tokens] or [tokens, dimension], and values [samples, tokens]."
        )
    points = finite_numbers("points", points).astype(np.float32).reshape(len(points), -1)
    number, dimension = points.shape
    check_in_unit_cube("points", points)
    period = (1.0,) * dimension if grid == "periodic" else None
    if weights is None:
        pair = domains(points, "quadrature", period)
    else:
        w = jnp.asarray(finite_numbers("weights", weights), jnp.float32)
        own = TokenDomain(jnp.asarray(points), w, period=period)
        pair = own, own
    return pair, grid_like(number, dimension)


def check_in_unit_cube(name: str, points: np.ndarray) -> None:
    least = points.min()
    most = points.max()
    if least < 0 or most > 1:
        raise InputError(f"{name} reach from {least:g} to {most:g}; scale each axis to [0, 1].")


def grid_like(number: int, dimension: int) -> tuple[int, ...]:
    """The shape of a grid of about as many points."""
    return (round(number ** (1 / dimension)),) * dimension


def coarser(
    x: np.ndarray, points: tuple[int, ...], grid: PointRule, first: int = 1
) -> np.ndarray:
    """Functions on a grid with fewer `points` along each axis, from the axis `first` on: a
    subset of the points of a "periodic" grid, means of neighbours on a "midpoint" grid."""
    for axis, number in enumerate(points, first):
        split = number, x.shape[axis] // number
        x = x.reshape(*x.shape[:axis], *split, *x.shape[axis + 1 :])
        x = x.take(0, axis + 1) if grid == "periodic" else x.mean(axis + 1)
    return x


def coarser_grid(
    tokens: int | tuple[int, ...], points: tuple[int, ...], grid: str | None
) -> tuple[int, ...]:
    """The points of a coarser grid along each axis, `tokens` for each or for all.

    **Raises:** `InputError` where `coarser` does not apply.
    """
    fewer = tokens if isinstance(tokens, tuple) else (tokens,) * len(points)
    fits = len(fewer) == len(points) and not any(map(op.mod, points, fewer))
    if grid not in ("periodic", "midpoint") or not fits:
        raise InputError(
            f"tokens={tokens}: only functions on a periodic or midpoint grid have coarser "
            f"ones, whose points divide theirs, {points}; for others evaluate on a file with "
            "these points, data.path=…, or write a task with with_tokens."
        )
    return fewer


def check_norms(
    part: str, name: str, functions: np.ndarray, weights: Any | None = None
) -> None:
    """Raises `InputError` for functions `[samples, tokens, …]` whose norm, as `RelativeError`
    computes it, is 0 or not finite. `weights`: of the tokens in the norm; default: 1."""
    if not len(functions):
        return
    limits = np.finfo(np.float32)
    v = functions.reshape(*functions.shape[:2], -1)
    shares = np.ones(1)
    if weights is not None:
        w = np.asarray(weights)
        shares = w / w.sum(axis=-1, keepdims=True)
    shares = np.broadcast_to(shares, v.shape[:2])
    squares = np.einsum("npc,npc,np->n", v, v, shares, dtype=float)
    # Squares that are rounded to zero have to be small beside the others.
    wrong = (squares < 1e3 * limits.tiny * v[0].size) | (squares > limits.max)
    if wrong.any():
        raise InputError(
            f"{name} of {wrong.sum()} {part} samples have a norm of "
            f"{np.sqrt(squares[wrong][0]):.0e}, whose square is zero or not finite in single "
            f"precision; a relative error needs it. Scale all {name}, or leave these out."
        )


def finite_numbers(name: str, x: np.ndarray) -> np.ndarray:
    """An array of finite numbers, in float32 or int32."""
    if x.dtype.kind not in "fiu" or not x.ndim or 0 in x.shape[1:]:
        raise InputError(
            f"{name} are {x.dtype}{[*x.shape]}; give real numbers or integers, at least one of "
            "each sample."
        )
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


def drawn_parts(number: int, held_out: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Draws which of `number` samples each part gets, the same for every run. `held_out` has
    the fraction of each part; `training` gets the rest. A part that is given gets none."""
    left = np.random.default_rng(0).permutation(number)
    drawn = {}
    for part, held in held_out.items():
        if not isinstance(held, tuple):
            drawn[part], left = np.split(left, [round(held * number)])
    return {**drawn, "training": left}


def check_parts(sizes: Mapping[str, int], held_out: Mapping[str, Any], whole: str) -> None:
    """Raises `InputError` if there is nothing to learn, or nothing to validate on."""
    if not sizes["validation"] or not (sizes["training"] or held_out["validation"] == 1):
        left_for = ", ".join(f"{n} for {part}" for part, n in sizes.items())
        raise InputError(
            f"{whole} leave {left_for}; give more, or other fractions (data.validation, "
            "data.test)."
        )
