import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from ..arguments import PositiveInt
from ..errors import InputError
from ..models import AbstractModel, OperatorModel
from .flows import AbstractFlow, Functions, functions
from .losses import AbstractLoss, Batch, RelativeError
from .task import AbstractTask, Part, in_passes, spread


class FlowMapTask(AbstractTask):
    """Predict the function that a flow makes of another one; tokens are grid points.

    `inputs, targets: [samples, context]`, real values on a periodic grid. Training, validation
    and test samples begin from functions of their own, always the same; they are solved once.

    **Arguments:**

    - `flow`: the equation.
    - `context`: the points of the grid.
    - `samples`: those to train on.
    - `held_out_samples`: those for validation, and as many for a test.

    **Raises:** `InputError` where the flow cannot be solved, see `flows.functions`.
    """

    configurable: ClassVar[bool] = False
    model: ClassVar[type[AbstractModel]] = OperatorModel
    loss: AbstractLoss = RelativeError()

    def __init__(
        self,
        flow: AbstractFlow,
        context: PositiveInt,
        samples: PositiveInt,
        held_out_samples: PositiveInt,
    ):
        self.context = context
        sizes = {"train": samples, "validation": held_out_samples, "test": held_out_samples}
        parts = functions(flow, sizes, context)
        self.train, self.validation, self.test = (parts[name] for name in sizes)

    @property
    def sizes(self) -> dict[str, Any]:
        return {"points": self.context}

    @property
    def tokens_per_sample(self) -> int:
        return self.context

    def at_context(self, context: PositiveInt) -> "FlowMapTask":
        """Every so many of the points.

        **Raises:** `InputError` for a number that does not divide theirs.
        """
        stride, rest = divmod(self.context, context)
        if rest:
            raise InputError(
                f"the functions are known at {self.context} points, of which {context} at "
                "equal distances are no part; give a number that divides it."
            )
        other = copy.copy(self)
        other.context = context
        for part in ("train", "validation", "test"):
            pairs = getattr(self, part)
            setattr(other, part, Functions(*(x[:, ::stride] for x in pairs)))
        return other

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The next samples of a new random order in each pass over the training set."""
        return _chosen(self.train, in_passes(step, size, len(self.train.before), seed))

    def held_out(
        self, size: int, samples: int | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        pairs = self.test if part == "test" else self.validation
        chosen = spread(np.arange(len(pairs.before)), samples)
        for first in range(0, len(chosen), size):
            yield _chosen(pairs, chosen[first : first + size])


def _chosen(pairs: Functions, samples: Any) -> Batch:
    return Batch(pairs.before[samples], pairs.after[samples])
