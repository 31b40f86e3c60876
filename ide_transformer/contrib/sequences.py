"""Random sequences of tokens: induction over several hops."""

from typing import Annotated, Any

import numpy as np

from ide_transformer.arguments import PositiveInt, at_least
from ide_transformer.errors import InputError
from ide_transformer.models import LanguageModel
from ide_transformer.tasks import (
    UNCOUNTED,
    AbstractDrawn,
    Batch,
    InstanceCrossEntropy,
    checked_dataclass,
)


# The number of words in which a new task counts targets.
_CHECKED = 1024


class AbstractSequences(AbstractDrawn):
    """Random sequences of tokens; see `AbstractDrawn`."""

    model = LanguageModel
    causal = True
    loss = InstanceCrossEntropy()
    vocabulary: int

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}


@checked_dataclass
class PHop(AbstractSequences):
    """Induction over several hops. A hop leads from a token to the token after its last earlier
    occurrence:

    `find(i) = max {j ≤ i : w_{j-1} = w_i}`, with the target `w_j` at `j = find(find(… i))`.

    Each token is uniform among the tokens that differ from the one before, since a hop between
    equal neighbours would stand still. Positions where all hops are defined have a target. A
    depth of the order of `log hops` is sufficient.

    `inputs, targets: [samples, context]`, both in `0 … alphabet - 1`.

    Source: Sanford, Hsu, Telgarsky, "Transformers, parallel computation, and logarithmic
    depth", 2024, arXiv 2402.09268, section 4.

    **Arguments:**

    - `context`: the number of tokens.
    - `alphabet`: the number of different tokens.
    - `hops`: the number of hops.

    **Raises:** `InputError` if words have less than one target on average.
    """

    context: PositiveInt
    alphabet: Annotated[int, at_least(3)] = 4
    hops: PositiveInt = 2

    def __post_init__(self):
        self.vocabulary = self.alphabet
        words = self.draw(_CHECKED, np.random.default_rng(0), held_out=True)
        targets = np.sum(words.targets != UNCOUNTED)
        if targets < _CHECKED:
            raise InputError(
                f"hops={self.hops}: {_CHECKED} words with model.context={self.context} and "
                f"alphabet={self.alphabet} have {targets} targets only. Use fewer hops, a "
                "longer context or a smaller alphabet."
            )

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        shape = number, self.context
        words = random.integers(0, self.alphabet, shape, dtype=np.int32)
        words[:, 1:] = random.integers(1, self.alphabet, (number, self.context - 1))
        words = np.cumsum(words, axis=1, dtype=np.int32) % self.alphabet
        rows = np.arange(number)
        # The last position after each token of the alphabet; -1 for none.
        after = np.full((number, self.alphabet), -1)
        # The position to which a hop leads from each position.
        hop = np.empty(shape, int)
        for i in range(self.context):
            if i:
                after[rows, words[:, i - 1]] = i
            hop[:, i] = after[rows, words[:, i]]
        end = hop
        for _ in range(self.hops - 1):
            next_end = np.take_along_axis(hop, np.maximum(end, 0), axis=1)
            end = np.where(end < 0, -1, next_end)
        targets = np.take_along_axis(words, np.maximum(end, 0), axis=1)
        return Batch(words, np.where(end < 0, UNCOUNTED, targets))
