import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from ..arguments import PositiveFloat, PositiveInt, checked
from ..models import Field, Model, OperatorModel
from .losses import AbstractLoss, Batch
from .point_sets import PointSet, WeightRule, domains, in_blocks, points_on_interval
from .relative_error import RelativeError
from .task import AbstractTask, Part, one_number, spread


_PARTS: dict[Part, int] = {"validation": 1, "test": 2}


class BurgersInterval(AbstractTask):
    """The flow map `u(·, 0) ↦ u(·, time)` of the viscous Burgers equation on [0, 1],

        u_t + (u²/2)_x = ν u_xx,   u = 0 at both ends,

    known exactly at any points: Cole and Hopf's `u = -2ν φ_x / φ` makes the heat equation of
    it, of which `φ = 1 + Σ_k c_k cos(kπx) exp(-νk²π²t)` is a solution. Each batch
    draws new coefficients c, `Σ |c_k|` from 0.3 to 0.9. Inputs and targets are `u / 2ν`,
    `[samples, context]`, at the middles of equal parts; at other points each is a `Field`, all
    samples of a batch on the same points.

    **Arguments:**

    - `context`: the number of points.
    - `viscosity`: ν.
    - `time`: of the flow.
    - `waves`: the number of c.
    - `held_out_samples`: those for validation, and as many for a test.
    - `points`: "grid"; or new ones for each batch, "random", or half of them "clustered" in a
      window of length 1/8.
    - `weights`: of these points in integrals, "quadrature" or "equal". The relative error is
      always the one of quadrature.
    """

    model: ClassVar[type[Model]] = OperatorModel
    loss: AbstractLoss = RelativeError()

    def __init__(
        self,
        context: PositiveInt,
        viscosity: PositiveFloat = 0.05,
        time: PositiveFloat = 0.2,
        waves: PositiveInt = 4,
        held_out_samples: PositiveInt = 512,
        points: PointSet = "grid",
        weights: WeightRule = "quadrature",
    ):
        self.context = context
        self.viscosity = viscosity
        self.time = time
        self.waves = waves
        self.held_out_samples = held_out_samples
        self.points: PointSet = points
        self.weights: WeightRule = weights

    @property
    def sizes(self) -> dict[str, Any]:
        return {"points": self.context, "grid": "midpoint"}

    @property
    def tokens_per_sample(self) -> int:
        return self.context

    def with_tokens(self, tokens: int | tuple[int, int]) -> "BurgersInterval":
        tokens = one_number(tokens)
        other = copy.copy(self)
        other.context = tokens
        return other

    def batch(self, step: int, size: int, seed: int) -> Batch:
        return self.solutions(self._drawn(size, (0, seed, step)), (0, seed, step))

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        drawn = self._drawn(self.held_out_samples, (_PARTS[part],))
        chosen = drawn[spread(np.arange(len(drawn)), samples)]
        for first, some in in_blocks(chosen, size, self.points):
            yield self.solutions(some, (_PARTS[part], first))

    def solutions(self, c: np.ndarray, seed: tuple[int, ...] = (0,)) -> Batch:
        """The functions at the times 0 and `time` of coefficients `c: [samples, waves]`.

        **Arguments:**

        - `seed`: of the points, where they are random.
        """
        random = np.random.default_rng((*seed, 1))
        x = points_on_interval(self.points, self.context, random)
        k = np.pi * np.arange(1, self.waves + 1)
        later = c * np.exp(-self.viscosity * self.time * k**2)
        cos, sin = np.cos(np.outer(k, x)), k[:, None] * np.sin(np.outer(k, x))
        before, after = (((b @ sin) / (1 + b @ cos)).astype(np.float32) for b in (c, later))
        if self.points == "grid":
            return Batch(before, after)
        own, of_norms = domains(x[:, None], self.weights)
        return Batch(Field(before, own), Field(after, of_norms))

    def _drawn(self, number: int, seed: tuple[int, ...]) -> np.ndarray:
        random = np.random.default_rng(seed)
        c = random.normal(size=(number, self.waves))
        size = random.uniform(0.3, 0.9, size=(number, 1))
        return size * c / np.abs(c).sum(1, keepdims=True)
