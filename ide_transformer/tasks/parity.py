import numpy as np

from .losses import Batch
from .sequences import AbstractSequencesByLength, uncounted


class Parity(AbstractSequencesByLength):
    """Whether the number of ones among some bits is odd. Only the end of an instance has a
    target.

    `inputs: [samples, tokens]`: the bits, then the token 2, then 3 as padding. `targets`: 0 or
    1 at the token 2. The length of an instance is its number of bits.

    Source: Anil et al., "Exploring length generalization in large language models", 2022,
    arXiv 2207.04901.

    **Arguments:** see `AbstractSequencesByLength`.
    """

    @property
    def vocabulary(self) -> int:
        return 4

    def tokens_of(self, length: int) -> int:
        return length + 1

    def instances(self, lengths: np.ndarray, tokens: int, random: np.random.Generator) -> Batch:
        shape = len(lengths), tokens
        bits = random.integers(0, 2, shape, dtype=np.int32)
        after = np.arange(tokens) - lengths[:, None]
        odd = np.sum(bits * (after < 0), axis=1, keepdims=True) % 2
        end = after == 0
        inputs = np.where(after < 0, bits, np.where(end, 2, 3)).astype(np.int32)
        return Batch(inputs, np.where(end, odd, uncounted(shape)).astype(np.int32))
