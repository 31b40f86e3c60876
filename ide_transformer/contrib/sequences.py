"""Random sequences of tokens: induction over several hops, and nested lists."""

from typing import Annotated, Any

import numpy as np

from ide_transformer.arguments import PositiveInt, above, at_least, below
from ide_transformer.errors import InputError
from ide_transformer.models import LanguageModel, SequenceClassifier, Text
from ide_transformer.tasks import (
    UNCOUNTED,
    AbstractDrawn,
    Batch,
    CrossEntropy,
    InstanceCrossEntropy,
    checked_dataclass,
)


# Words in which targets are counted at first.
_TRIED = 1024

OPERATORS = ("MIN", "MAX", "MED", "SM")
# The digits are the tokens 0 … 9.
_CLOSE = 10 + len(OPERATORS)
_END = _CLOSE + 1


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

    Each token is uniform among the tokens that differ from the one before; a hop between equal
    neighbours would end where it began. Positions where all hops are defined have a target.
    Depth of the order of `log hops` is sufficient.

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
        words = self.draw(_TRIED, np.random.default_rng(0), held_out=True)
        targets = np.sum(words.targets != UNCOUNTED)
        if targets < _TRIED:
            raise InputError(
                f"hops={self.hops}: {_TRIED} words of model.context={self.context} tokens, "
                f"{self.alphabet} different ones, have {targets} targets. Take fewer hops, a "
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
        # Where one hop leads from each position.
        one = np.empty(shape, int)
        for i in range(self.context):
            if i:
                after[rows, words[:, i - 1]] = i
            one[:, i] = after[rows, words[:, i]]
        found = one
        for _ in range(self.hops - 1):
            further = np.take_along_axis(one, np.maximum(found, 0), axis=1)
            found = np.where(found < 0, -1, further)
        reached = np.take_along_axis(words, np.maximum(found, 0), axis=1)
        return Batch(words, np.where(found < 0, UNCOUNTED, reached))


@checked_dataclass
class ListOps(AbstractSequences):
    """The value of nested lists (ListOps), a digit: `[MAX 4 3 [MIN 2 3 ] 1 [SM 5 7 ] ]`.
    MIN, MAX and MED are the smallest, the largest and the median of a list, rounded down, and
    SM is its sum modulo 10.

    `inputs`: a `Text` padded to `longest` tokens; `targets: [samples]`, digits.

    **Arguments:**

    - `context`: the most tokens that the model sees.
    - `shortest`, `longest`: tokens of an expression; default: 16, and the context. Expressions
      of other lengths are drawn again.
    - `depth`: the most lists inside each other.
    - `arguments`: the most members of a list, at least 2.
    - `digits`: the probability that a member of a list is a digit.

    Source: Nangia and Bowman, "ListOps", 2018, arXiv 1804.06028; with lengths as in the Long
    Range Arena, Tay et al., 2020, arXiv 2011.04006.
    """

    model = SequenceClassifier
    causal = False
    loss = CrossEntropy()
    vocabulary = _END + 1

    context: PositiveInt
    shortest: PositiveInt = 16
    longest: PositiveInt | None = None
    depth: PositiveInt = 5
    arguments: Annotated[int, at_least(2)] = 5
    digits: Annotated[float, above(0), below(1)] = 0.6

    def __post_init__(self):
        if self.tokens_per_sample > self.context:
            raise InputError(
                f"longest={self.longest}: the model sees model.context={self.context} tokens; "
                "raise it, or take shorter expressions."
            )
        # With fewer expressions of a wanted length a batch would take minutes, or never end.
        random = np.random.default_rng(0)
        found = 0
        for _ in range(1000):
            found += self._drawn(random) is not None
            if found == 5:
                return
        raise InputError(
            f"shortest={self.shortest}, longest={self.tokens_per_sample}: of 1000 expressions "
            f"with depth={self.depth}, arguments={self.arguments} and digits={self.digits} "
            f"{found} have such a length, fewer than 5. Lower shortest, or raise longest."
        )

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary, "classes": 10}

    @property
    def tokens_per_sample(self) -> int:
        return self.context if self.longest is None else self.longest

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        tokens = np.full((number, self.tokens_per_sample), _END, np.int32)
        targets = np.zeros(number, np.int32)
        for row in range(number):
            while (found := self._drawn(random)) is None:
                pass
            expression, targets[row] = found
            tokens[row, : len(expression)] = expression
        return Batch(Text(tokens, tokens != _END), targets)

    def _drawn(self, random: np.random.Generator) -> tuple[list[int], int] | None:
        """An expression and its value; `None` if it is too short or too long."""
        tokens: list[int] = []
        value = self._list(random, 1, tokens)
        return None if value is None or len(tokens) < self.shortest else (tokens, value)

    def _list(self, random: np.random.Generator, depth: int, tokens: list[int]) -> int | None:
        """Appends a list and gives its value; `None` if it becomes too long."""
        operator = int(random.integers(len(OPERATORS)))
        tokens.append(10 + operator)
        members = []
        for _ in range(int(random.integers(2, self.arguments + 1))):
            if depth == self.depth or random.random() < self.digits:
                member = int(random.integers(10))
                tokens.append(member)
            else:
                member = self._list(random, depth + 1, tokens)
            if member is None or len(tokens) >= self.tokens_per_sample:
                return None
            members.append(member)
        tokens.append(_CLOSE)
        members.sort()
        half = len(members) // 2
        median = (members[half] + members[~half]) // 2
        return (members[0], members[-1], median, sum(members) % 10)[operator]
