import itertools

import numpy as np

from ..arguments import PositiveInt
from ..errors import InputError
from .losses import Batch
from .sequences import AbstractSequencesByLength, at_least, uncounted


# S_6 has 720 elements; the table of the next one has 25 million entries.
_LARGEST_DEGREE = 6


class WordProblem(AbstractSequencesByLength):
    """The word problem of the symmetric group `S_n`: tokens are permutations of `n` letters,
    and the target at each is the product so far, `g_1 g_2 … g_i`, where `(g h)(x) = g(h(x))`.

    S₃ is solvable; S₅ is not, so that its word problem is complete for the circuits NC¹, while
    a Transformer with a fixed number of layers is in TC⁰: words of any length are believed to
    need more layers.

    `inputs, targets: [samples, tokens]`, both in `0 … n! - 1`, the permutations in the order of
    `itertools.permutations`. A word is as long as its number of tokens; the letters that
    follow it have no target.

    Source: Merrill, Petty, Sabharwal, "The illusion of state in state-space models", 2024,
    arXiv 2404.08819.

    **Arguments:**

    - `degree`: `n`, from 2 to 6.
    - `context`, `lengths`, `held_out_lengths`, `start`: see `AbstractSequencesByLength`.

    **Raises:** `InputError` for another degree, or a length that is not possible.
    """

    def __init__(
        self,
        context: PositiveInt,
        lengths: tuple[int, int],
        held_out_lengths: tuple[int, int] | None = None,
        degree: PositiveInt = 3,
        start: bool = False,
    ):
        at_least("degree", degree, 2)
        if degree > _LARGEST_DEGREE:
            raise InputError(f"degree is {degree}; give at most {_LARGEST_DEGREE}.")
        super().__init__(context, lengths, held_out_lengths, start)
        self.degree = degree
        self.products = _products(degree)

    @property
    def vocabulary(self) -> int:
        return len(self.products)

    def tokens_of(self, length: int) -> int:
        return length

    def instances(self, lengths: np.ndarray, tokens: int, random: np.random.Generator) -> Batch:
        shape = len(lengths), tokens
        words = random.integers(0, self.vocabulary, shape, dtype=np.int32)
        targets = words.copy()
        for i in range(1, tokens):
            targets[:, i] = self.products[targets[:, i - 1], words[:, i]]
        inside = np.arange(tokens) < lengths[:, None]
        return Batch(words, np.where(inside, targets, uncounted(shape)))


def _products(degree: int) -> np.ndarray:
    """The table `[g, h]` of products of permutations."""
    elements = np.array(list(itertools.permutations(range(degree))))
    places = degree ** np.arange(degree)[::-1]  # the order of numbers is that of elements
    return np.searchsorted(elements @ places, elements[:, elements] @ places).astype(np.int32)
