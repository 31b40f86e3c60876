"""Functions at points of a grid, at random ones, and at clusters."""

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np

from ..arguments import PositiveFloat, PositiveInt, checked
from ..equation import TokenDomain
from ..models import Field, OperatorModel
from .losses import Batch, RelativeError
from .task import AbstractTask, Part, checked_dataclass, one_number, spread


PointSet: TypeAlias = Literal["grid", "random", "clustered"]
# Weights in integrals: the length or area nearest to each point, or all equal, as in a softmax.
WeightRule: TypeAlias = Literal["quadrature", "equal"]

# So many held-out samples have the same random points, whatever the size of a batch.
_BLOCK = 16
# The first number of the seeds of held-out parts; in training it is zero.
_PARTS: dict[Part, int] = {"validation": 1, "test": 2}


class AbstractAtPoints(AbstractTask):
    """A map between functions whose points may be others in each batch."""

    model = OperatorModel
    loss = RelativeError()
    points: PointSet
    weights: WeightRule

    @abc.abstractmethod
    def samples_of(self, part: Part) -> np.ndarray:
        """The numbers by which `functions` knows the held-out samples, `[samples, …]`."""

    @abc.abstractmethod
    def functions(self, samples: np.ndarray, seed: tuple[int, ...]) -> Batch:
        """The functions of some samples at the points of a seed."""

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

    known exactly at any points: Cole and Hopf's `u = -2ν φ_x / φ` makes the heat equation of
    it, of which `φ = 1 + Σ_k c_k cos(kπx) exp(-νk²π²t)` is a solution. Each batch
    draws new coefficients c, `Σ |c_k|` from 0.3 to 0.9. Inputs and targets are `u / 2ν`,
    `[samples, context]`, at the middles of equal parts; at other points each is a `Field`, all
    samples of a batch on the same points.

    **Arguments:**

    - `context`: the number of points.
    - `viscosity`, `time`, `waves`: ν, the time of the flow, and the number of c.
    - `held_out_samples`: those for validation, and as many for a test.
    - `points`: "grid"; or new ones for each batch, "random", or half of them "clustered" in a
      window of length 1/8.
    - `weights`: of these points in integrals, "quadrature" or "equal". The relative error is
      always the one of quadrature.
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
    """Points of the unit cube as the domain of a model, with the chosen weights, and as that of
    a norm of functions, with those of quadrature."""
    points = points.astype(np.float32)
    whole = TokenDomain.from_points(points, ((0.0, 1.0),) * points.shape[1], period)
    chosen = whole.weights if weights == "quadrature" else None
    return TokenDomain(whole.points, chosen, period=period), whole
