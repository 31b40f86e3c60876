import numpy as np

from ..arguments import PositiveInt
from .addition import sums_of
from .losses import Batch
from .sequences import AbstractSequencesByLength, at_least, uncounted


class ColumnAddition(AbstractSequencesByLength):
    """The sum of two numbers of `length` digits that stand in columns, the least digit first:
    `a_1 b_1 a_2 b_2 … =`. The target at each `b_i` is the digit `c_i` of the sum, and at `=`
    its last digit, the carry that is left.

    Digits of the same place are neighbours, so that the carry alone has to come from afar. In
    `Addition`, where the numbers follow each other, digits have to be found as well.

    `inputs: [samples, 2 length + 1]`: the digits, `base` for `=`, and `base + 1` as padding.

    **Arguments:**

    - `base`: of the digits.
    - `context`, `lengths`, `held_out_lengths`, `start`: see `AbstractSequencesByLength`.

    **Raises:** `InputError` for a base below 2, or a length that is not possible.
    """

    def __init__(
        self,
        context: PositiveInt,
        lengths: tuple[int, int],
        held_out_lengths: tuple[int, int] | None = None,
        base: PositiveInt = 10,
        start: bool = False,
    ):
        at_least("base", base, 2)
        self.base = base
        super().__init__(context, lengths, held_out_lengths, start)

    @property
    def vocabulary(self) -> int:
        return self.base + 2

    def tokens_of(self, length: int) -> int:
        return 2 * length + 1

    def instances(self, lengths: np.ndarray, tokens: int, random: np.random.Generator) -> Batch:
        samples, digits = len(lengths), tokens // 2
        inside = np.arange(digits) < lengths[:, None]
        numbers = random.integers(0, self.base, (2, samples, digits)) * inside
        sums = sums_of(numbers[0], numbers[1], self.base)
        columns = np.where(inside, numbers, self.base + 1)
        # The digits of both numbers in turn, and the place of the sign after the last of them.
        inputs = np.full((samples, tokens), self.base + 1, np.int32)
        inputs[:, :-1] = np.moveaxis(columns, 0, 2).reshape(samples, -1)
        targets = uncounted(inputs.shape)
        targets[:, 1::2] = np.where(inside, sums[:, :-1], targets[:, 1::2])
        rows = np.arange(samples)
        inputs[rows, 2 * lengths] = self.base
        targets[rows, 2 * lengths] = sums[rows, lengths]
        return Batch(inputs, targets)
