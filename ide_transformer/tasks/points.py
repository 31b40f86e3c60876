"""Tasks that map functions at points on a grid, at random points, or in clusters."""

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
# Weights in integrals: the size of the cell of each point, or equal weights, as in a softmax.
WeightRule: TypeAlias = Literal["quadrature", "equal"]

# The number of held-out samples that share random points, whatever the size of a batch.
_BLOCK = 16
# The first number in the seed of each held-out part; in training it is 0.
_PARTS: dict[Part, int] = {"validation": 1, "test": 2}


class AbstractAtPoints(AbstractTask):
    """Learns a map between functions at points that may change with each batch."""

    model = OperatorModel
    loss = RelativeError()
    points: PointSet
    weights: WeightRule

    @abc.abstractmethod
    def samples_of(self, part: Part) -> np.ndarray:
        """The held-out samples, `[samples, …]`, as arguments of `functions`."""

    @abc.abstractmethod
    def functions(self, samples: np.ndarray, seed: tuple[int, ...]) -> Batch:
        """Some samples as functions at points that `seed` draws."""

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        selected = self.samples_of(part)
        selected = selected[spread(len(selected), samples)]
        length = len(selected) if self.points == "grid" else _BLOCK
        for first in range(0, len(selected), max(length, 1)):
            block = selected[first : first + length]
            for start in range(0, len(block), size):
                yield self.functions(block[start : start + size], (_PARTS[part], first))


@checked_dataclass
class BurgersInterval(AbstractAtPoints):
    """The flow map of the viscous Burgers equation on [0, 1], `u(·, 0) ↦ u(·, time)`,

        u_t + (u²/2)_x = ν u_xx,   u = 0 at both ends,

    whose exact solution is `u = -2ν φ_x / φ` by Cole and Hopf, where
    `φ = 1 + Σ_k c_k cos(kπx) exp(-νk²π²t)` solves the heat equation. Each batch draws new
    coefficients c with `Σ |c_k|` from 0.3 to 0.9. Inputs and targets are `u / 2ν`,
    `[samples, context]`, at the middles of equal intervals. At other points each is a `Field`,
    whose points all samples of a batch share.

    **Arguments:**

    - `context`: the number of points.
    - `viscosity`, `time`, `waves`: ν, the time of the flow, the number of coefficients.
    - `held_out_samples`: the number of validation samples, and of test samples.
    - `points`: "grid"; "random": new points in each batch; "clustered": new points, half of
      them in a window of length 1/8.
    - `weights`: "quadrature" or "equal", for integrals in the model. The relative error always
      uses quadrature weights.
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
        return self.functions(self._draw(size, (0, seed, step)), (0, seed, step))

    def samples_of(self, part: Part) -> np.ndarray:
        return self._draw(self.held_out_samples, (_PARTS[part],))

    def functions(self, samples: np.ndarray, seed: tuple[int, ...]) -> Batch:
        """The functions at times 0 and `time` of coefficients c, `[samples, waves]`."""
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
        model_domain, norm_domain = domains(x[:, None], self.weights)
        return Batch(Field(before, model_domain), Field(after, norm_domain))

    def _draw(self, num_samples: int, seed: tuple[int, ...]) -> np.ndarray:
        random = np.random.default_rng(seed)
        c = random.normal(size=(num_samples, self.waves))
        sums = random.uniform(0.3, 0.9, size=(num_samples, 1))
        return sums * c / np.abs(c).sum(1, keepdims=True)


def domains(
    points: np.ndarray, weights: WeightRule, period: tuple[float | None, ...] | None = None
) -> tuple[TokenDomain, TokenDomain]:
    """Points of the unit cube as two domains: with `weights` for a model, and with quadrature
    weights for norms."""
    points = points.astype(np.float32)
    norm_domain = TokenDomain.from_points(points, ((0.0, 1.0),) * points.shape[1], period)
    model_weights = norm_domain.weights if weights == "quadrature" else None
    return TokenDomain(norm_domain.points, model_weights, period=period), norm_domain
