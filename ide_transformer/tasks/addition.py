import numpy as np

from ..arguments import PositiveInt
from .losses import Batch
from .sequences import AbstractSequencesByLength, at_least, uncounted


class Addition(AbstractSequencesByLength):
    """The sum of two numbers of `length` digits, written out: `a + b = c`, where `c` has a
    digit more. Leading zeros are written.

    `inputs: [samples, 3 length + 2]`: the digits, `base` for `+`, `base + 1` for `=`, and
    `base + 2` as padding; of `c` all digits but the last are given. `targets`: the digits of
    `c`, each at the token before it. So the targets of a sample are all right exactly where the
    model, writing the most likely token each time, would write the sum.

    Source: Lee et al., "Teaching arithmetic to small Transformers", 2023, arXiv 2307.03381,
    where the digits of the sum alone are reversed.

    **Arguments:**

    - `reverse`: whether all three numbers begin with the least digit, so that a carry goes to
      the digit that is written next.
    - `base`: of the digits.
    - `context`, `lengths`, `held_out_lengths`, `start`: see `AbstractSequencesByLength`.

    **Raises:** `InputError` for a base below 2, or a length that is not possible.
    """

    def __init__(
        self,
        context: PositiveInt,
        lengths: tuple[int, int],
        held_out_lengths: tuple[int, int] | None = None,
        reverse: bool = True,
        base: PositiveInt = 10,
        start: bool = False,
    ):
        at_least("base", base, 2)
        self.reverse, self.base = reverse, base
        super().__init__(context, lengths, held_out_lengths, start)

    @property
    def vocabulary(self) -> int:
        return self.base + 3

    def tokens_of(self, length: int) -> int:
        return 3 * length + 2

    def instances(self, lengths: np.ndarray, tokens: int, random: np.random.Generator) -> Batch:
        inputs = np.full((len(lengths), tokens), self.base + 2, np.int32)
        targets = uncounted(inputs.shape)
        order = slice(None, None, 1 if self.reverse else -1)
        for i, length in enumerate(lengths):
            a, b = random.integers(0, self.base, (2, length))  # the least digit first
            c = sums_of(a, b, self.base)[order]
            written = [*a[order], self.base, *b[order], self.base + 1, *c[:-1]]
            inputs[i, : len(written)] = written
            targets[i, len(written) - len(c) : len(written)] = c
        return Batch(inputs, targets)


def sums_of(a: np.ndarray, b: np.ndarray, base: int) -> np.ndarray:
    """The digits of sums, `[…, digits + 1]`, of numbers `[…, digits]`, the least one first."""
    digits = np.concatenate([a + b, np.zeros_like(a[..., :1])], axis=-1)
    for i in range(a.shape[-1]):
        digits[..., i + 1] += digits[..., i] // base
    return digits % base
