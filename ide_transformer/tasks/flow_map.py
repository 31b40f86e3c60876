import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from ..arguments import PositiveInt, checked
from ..equation import TokenDomain
from ..errors import InputError
from ..models import Field, Model, OperatorModel
from .flows import AbstractFlow, Functions, functions, solved
from .losses import AbstractLoss, Batch
from .relative_error import RelativeError
from .task import AbstractTask, Part, in_parts, in_passes, one_number


class FlowMapTask(AbstractTask):
    """Predict the function that a flow makes of another one; tokens are grid points.

    `inputs, targets: [samples, context]`, real values on a periodic grid; of more than one
    dimension each is a `Field`. Training, validation
    and test samples begin from functions of their own, always the same; they are solved once.

    **Arguments:**

    - `flow`: the equation.
    - `context`: the points of the grid along each axis.
    - `samples`: those to train on.
    - `held_out_samples`: those for validation, and as many for a test.

    **Raises:** `InputError` where the flow cannot be solved, see `flows.functions`.
    """

    configurable: ClassVar[bool] = False
    model: ClassVar[type[Model]] = OperatorModel
    loss: AbstractLoss = RelativeError()

    def __init__(
        self,
        flow: AbstractFlow,
        context: PositiveInt,
        samples: PositiveInt,
        held_out_samples: PositiveInt,
    ):
        self.flow, self.context, self.held_out_samples = flow, context, held_out_samples
        sizes = {"train": samples, "validation": held_out_samples, "test": held_out_samples}
        parts = functions(flow, sizes, context)
        self.train, self.validation, self.test = (parts[name] for name in sizes)

    @property
    def sizes(self) -> dict[str, Any]:
        dimension = self.flow.dimension
        return {"points": self.context if dimension == 1 else (self.context,) * dimension}

    @property
    def tokens_per_sample(self) -> int:
        return self.context**self.flow.dimension

    def with_tokens(self, tokens: int | tuple[int, int]) -> "FlowMapTask":
        """Every so many of the points.

        **Raises:** `InputError` for a number that does not divide theirs.
        """
        tokens = one_number(tokens)
        stride, rest = divmod(self.context, tokens)
        if rest:
            raise InputError(
                f"the functions are known at {self.context} points, of which {tokens} at "
                "equal distances are no part; give a number that divides it."
            )
        other = copy.copy(self)
        other.context = tokens
        for part in ("train", "validation", "test"):
            pairs = getattr(self, part)
            coarse = (slice(None), *(slice(None, None, stride),) * self.flow.dimension)
            setattr(other, part, Functions(*(x[coarse] for x in pairs)))
        return other

    def trajectory(self, times: PositiveInt, samples: PositiveInt) -> np.ndarray:
        """The first test functions at the times 0, `time`, 2 `time`, …, `[times + 1, samples,
        points]`, with an axis of points for each dimension; solved at each call.

        **Raises:** `InputError` for more than there are.
        """
        if samples > self.held_out_samples:
            raise InputError(
                f"samples={samples}: there are {self.held_out_samples} test functions."
            )
        number, seed = self.held_out_samples, 2
        return solved(self.flow, number, self.context, seed, times=times)[:, :samples]

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The next samples of a new random order in each pass over the training set."""
        chosen = in_passes(step, size, len(self.train.before), seed)
        return self._chosen(self.train, chosen)

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        pairs = self.test if part == "test" else self.validation
        for chosen in in_parts(range(len(pairs.before)), size, samples):
            yield self._chosen(pairs, chosen)

    def function(self, values: Any) -> Any:
        """Values `[samples, points]`, with an axis of points for each dimension, as inputs of a
        model."""
        if self.flow.dimension == 1:
            return values
        domain = TokenDomain.periodic((self.context,) * self.flow.dimension)
        return Field(values.reshape(len(values), -1), domain)

    def _chosen(self, pairs: Functions, samples: Any) -> Batch:
        return Batch(*(self.function(x[samples]) for x in pairs))
