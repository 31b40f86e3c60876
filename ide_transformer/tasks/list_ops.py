from typing import Any, ClassVar

import numpy as np

from ..arguments import PositiveInt
from ..errors import InputError
from ..models import Model, SequenceClassifier, Text
from .losses import AbstractLoss, Batch, CrossEntropy
from .sequences import AbstractSequences, at_least


OPERATORS = ("MIN", "MAX", "MED", "SM")
# The digits are the tokens 0 … 9.
_CLOSE, _PADDING = 10 + len(OPERATORS), 11 + len(OPERATORS)

# Of so many expressions, at least so many have a length that is wanted; else drawing a batch
# would take minutes, or never end.
_TRIED, _LEAST = 1000, 5


class ListOps(AbstractSequences):
    """ListOps: the value, a digit, of nested lists such as `[MAX 4 3 [MIN 2 3 ] 1 [SM 5 7 ] ]`.
    MIN, MAX and MED are the smallest, the largest and the median of a list, rounded down, and
    SM is its sum modulo 10.

    `inputs`: a `Text` of at most `longest` tokens, padded to that; `targets: [samples]`,
    digits. Expressions are drawn without end, those of a length that is not wanted again.

    **Arguments:**

    - `context`: the most tokens that the model sees.
    - `shortest`, `longest`: tokens of an expression; default: 16, and the context.
    - `depth`: lists inside each other, at most.
    - `arguments`: members of a list, at most; at least 2.
    - `digits`: the probability that a member of a list is a digit.

    **Raises:** `InputError` for lengths that are not possible, or that few expressions have.

    Source: Nangia and Bowman, "ListOps", 2018, arXiv 1804.06028; with lengths as in the Long
    Range Arena, Tay et al., 2020, arXiv 2011.04006.
    """

    model: ClassVar[type[Model]] = SequenceClassifier
    causal: ClassVar[bool] = False
    loss: AbstractLoss = CrossEntropy()

    def __init__(
        self,
        context: PositiveInt,
        shortest: PositiveInt = 16,
        longest: PositiveInt | None = None,
        depth: PositiveInt = 5,
        arguments: PositiveInt = 5,
        digits: float = 0.6,
    ):
        self.longest = context if longest is None else longest
        self.shortest, self.depth, self.arguments, self.digits = (
            shortest,
            depth,
            arguments,
            digits,
        )
        at_least("arguments", arguments, 2)
        if not 0 < digits < 1:
            raise InputError(f"digits is {digits}; give a probability between 0 and 1.")
        if self.longest > context:
            raise InputError(
                f"longest={longest}: the model sees model.context={context} tokens; raise it, "
                "or take shorter expressions."
            )
        # A list of two members has four tokens, and one of lists alone has the most of all.
        most = 1
        for _ in range(depth):
            most = min(2 + arguments * most, 2**31)
        if self.longest < 4 or self.shortest > min(self.longest, most):
            raise InputError(
                f"shortest={shortest}, longest={self.longest}: with depth={depth} and "
                f"arguments={arguments} an expression has 4 to {most} tokens; give an "
                "increasing pair of these."
            )
        self._check_that_lengths_occur()

    @property
    def vocabulary(self) -> int:
        return _PADDING + 1

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary, "classes": 10}

    @property
    def tokens_per_sample(self) -> int:
        return self.longest

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        tokens = np.full((number, self.longest), _PADDING, np.int32)
        targets = np.zeros(number, np.int32)
        for row in range(number):
            expression, targets[row] = self._expression(random)
            tokens[row, : len(expression)] = expression
        return Batch(Text(tokens, tokens != _PADDING), targets)

    def _expression(self, random: np.random.Generator) -> tuple[list[int], int]:
        while True:
            tokens, value = self._drawn(random)
            if value is not None and len(tokens) >= self.shortest:
                return tokens, value

    def _drawn(self, random: np.random.Generator) -> tuple[list[int], int | None]:
        """An expression of any length and its value; `None` where it becomes too long."""
        tokens: list[int] = []
        return tokens, self._list(random, 1, tokens)

    def _check_that_lengths_occur(self) -> None:
        random, wanted, shorter = np.random.default_rng(0), 0, 0
        for _ in range(_TRIED):
            tokens, value = self._drawn(random)
            short = len(tokens) < self.shortest
            wanted += value is not None and not short
            shorter += value is not None and short
            if wanted == _LEAST:
                return
        advice = "Raise longest or digits, or lower depth or arguments."
        if 2 * shorter > _TRIED:
            advice = "Lower shortest or digits, or raise depth or arguments."
        raise InputError(
            f"shortest={self.shortest}, longest={self.longest}: of {_TRIED} expressions drawn "
            f"with depth={self.depth}, arguments={self.arguments} and digits={self.digits} "
            f"{wanted} have such a length, and {shorter} are shorter; at least {_LEAST} are "
            f"needed. {advice}"
        )

    def _list(self, random: np.random.Generator, depth: int, tokens: list[int]) -> int | None:
        """Appends a list and gives its value; `None` where it becomes too long."""
        operator = int(random.integers(len(OPERATORS)))
        tokens.append(10 + operator)
        members = []
        for _ in range(int(random.integers(2, self.arguments + 1))):
            if depth == self.depth or random.random() < self.digits:
                member = int(random.integers(10))
                tokens.append(member)
            else:
                member = self._list(random, depth + 1, tokens)
            if member is None or len(tokens) >= self.longest:
                return None
            members.append(member)
        tokens.append(_CLOSE)
        return value_of(operator, members)


def value_of(operator: int, members: list[int]) -> int:
    """The value of a list of digits."""
    if operator == 2:
        ordered, half = sorted(members), len(members) // 2
        return (ordered[half] + ordered[~half]) // 2
    return (min, max, None, lambda x: sum(x) % 10)[operator](members)  # type: ignore
