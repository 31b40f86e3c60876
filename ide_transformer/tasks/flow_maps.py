"""Tasks of operator learning: the map from a function to what a flow makes of it."""

import copy
import dataclasses
from typing import Any, ClassVar

import numpy as np

from ..arguments import PositiveFloat, PositiveInt
from ..equation import TokenDomain
from ..errors import InputError
from ..models import Field, OperatorModel
from .flows import AbstractFlow, BurgersFlow, Functions, NavierStokesFlow, functions, solved
from .losses import Batch, RelativeError
from .task import AbstractDataSet, checking, one_number


@checking
@dataclasses.dataclass(eq=False)
class FlowMapTask(AbstractDataSet):
    """Predict the function that a flow makes of another one; tokens are grid points.

    `inputs, targets: [samples, context]`, real values on a periodic grid; of more than one
    dimension each is a `Field`. Training, validation and test samples begin from functions of
    their own, always the same; they are solved once.

    **Arguments:**

    - `flow`: the equation.
    - `context`: the points of the grid along each axis.
    - `samples`: those to train on.
    - `held_out_samples`: those for validation, and as many for a test.
    """

    configurable: ClassVar[bool] = False
    model = OperatorModel
    loss = RelativeError()

    flow: AbstractFlow
    context: PositiveInt
    samples: PositiveInt
    held_out_samples: PositiveInt

    def __post_init__(self):
        sizes = dict.fromkeys(("training", "validation", "test"), self.held_out_samples)
        self.data = functions(self.flow, sizes | {"training": self.samples}, self.context)

    @property
    def sizes(self) -> dict[str, Any]:
        dimension = self.flow.dimension
        return {"points": self.context if dimension == 1 else (self.context,) * dimension}

    @property
    def tokens_per_sample(self) -> int:
        return self.context**self.flow.dimension

    def with_tokens(self, tokens: int | tuple[int, int]) -> "FlowMapTask":
        """The functions at every so many of the points, a number that divides theirs."""
        stride, rest = divmod(self.context, one_number(tokens))
        if rest:
            raise InputError(
                f"the functions are known at {self.context} points, of which {tokens} at "
                "equal distances are no part; give a number that divides it."
            )
        coarse = (slice(None), *(slice(None, None, stride),) * self.flow.dimension)
        other = copy.copy(self)
        other.context = self.context // stride
        other.data = {n: Functions(*(x[coarse] for x in p)) for n, p in self.data.items()}
        return other

    def trajectory(self, times: PositiveInt, samples: PositiveInt) -> np.ndarray:
        """The first test functions at the times 0, `time`, 2 `time`, …, `[times + 1, samples,
        points]`, with an axis of points for each dimension; solved at each call. For more than
        there are `InputError` is raised."""
        if samples > self.held_out_samples:
            raise InputError(
                f"samples={samples}: there are {self.held_out_samples} test functions."
            )
        number, seed = self.held_out_samples, 2
        return solved(self.flow, number, self.context, seed, times=times)[:, :samples]

    def function(self, values: Any) -> Any:
        """Values `[samples, points]`, with an axis of points for each dimension, as inputs of a
        model."""
        if self.flow.dimension == 1:
            return values
        domain = TokenDomain.periodic((self.context,) * self.flow.dimension)
        return Field(values.reshape(len(values), -1), domain)

    def chosen(self, part: str, samples: Any) -> Batch:
        return Batch(*(self.function(x[samples]) for x in self.data[part]))


class Burgers(FlowMapTask):
    """The flow map `u(·, 0) ↦ u(·, time)` of the viscous Burgers equation,

        u_t + (u²/2)_x = ν u_xx,   x in [0, 1), periodic,

    from random functions of four waves, zero mean and variance 1; see `FlowMapTask`.

    **Arguments:**

    - `viscosity`: ν; where it is so small that 512 points do not resolve the fronts,
      `InputError` is raised.
    - `time`: at 0.3 a function has about half of its size, and one to four fronts.
    - others: see `FlowMapTask`.
    """

    configurable: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        context: PositiveInt,
        viscosity: PositiveFloat = 1e-2,
        time: PositiveFloat = 0.3,
        samples: PositiveInt = 4096,
        held_out_samples: PositiveInt = 512,
    ) -> FlowMapTask:
        return cls(BurgersFlow(time, viscosity), context, samples, held_out_samples)


class NavierStokes(FlowMapTask):
    """The flow map `ω(·, t) ↦ ω(·, t + time)` of the vorticity on a torus, from t = 0, `time`,
    2 `time` and 3 `time`, so that it can be applied to its own outputs; see `NavierStokesFlow`
    and `FlowMapTask`. The samples are solved once, which takes minutes, and kept in the cache.

    **Arguments:**

    - `viscosity`: ν; where it is so small that 64 points along each axis do not resolve the
      flow, `InputError` is raised.
    - `samples`, `held_out_samples`: the random functions, each of which gives four pairs.
    - others: see `FlowMapTask`.
    """

    configurable: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        context: PositiveInt,
        viscosity: PositiveFloat = 1e-3,
        time: PositiveFloat = 1.0,
        samples: PositiveInt = 256,
        held_out_samples: PositiveInt = 32,
    ) -> FlowMapTask:
        return cls(NavierStokesFlow(time, viscosity), context, samples, held_out_samples)
