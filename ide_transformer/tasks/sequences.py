"""Sequences of tokens that a seed draws without end."""

import abc
import dataclasses
import operator as op
from collections.abc import Iterator
from typing import Annotated, Any

import jax
import numpy as np
from pydantic import Field

from ..arguments import PositiveInt, checked
from ..errors import InputError
from ..models import LanguageModel
from .losses import UNCOUNTED, Batch, InstanceCrossEntropy
from .sampling import in_parts
from .task import AbstractTask, Part, checking


# Number of samples in a held-out part.
HELD_OUT = 1024


class AbstractSequences(AbstractTask):
    """Sequences of tokens that a generator draws: unlimited data.

    The batch of a step is drawn by `default_rng([seed, step])`. The samples for validation are
    drawn by `default_rng([0, 0, 1])` and those of the test by `default_rng([0, 0, 2])`, streams
    that no step of any seed has, so they are the same for every run.
    """

    model = LanguageModel
    causal = True
    loss = InstanceCrossEntropy()

    @property
    @abc.abstractmethod
    def vocabulary(self) -> int:
        """The number of tokens that may occur."""

    @abc.abstractmethod
    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        """So many samples."""

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def batch(self, step: int, size: int, seed: int) -> Batch:
        return self.draw(size, np.random.default_rng([seed, step]), held_out=False)

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        stream = 1 + self.parts.index(part)
        drawn = self.draw(HELD_OUT, np.random.default_rng([0, 0, stream]), held_out=True)
        for chosen in in_parts(range(HELD_OUT), size, samples):
            yield jax.tree.map(op.itemgetter(chosen), drawn)


@checking
@dataclasses.dataclass(eq=False)
class PHop(AbstractSequences):
    """Induction over several hops. A hop leads from a token to the one that followed its last
    occurrence before:

    `find(i) = max {j ≤ i : w_{j-1} = w_i}`, with the target `w_j` at `j = find(find(… i))`.

    Tokens are drawn uniformly from those that differ from the one before; a hop between equal
    neighbours would end where it began. Every position where all hops are defined has a target;
    the others are not counted. Depth of the order of `log hops` is sufficient.

    `inputs, targets: [samples, context]`, both in `0 … alphabet - 1`.

    Source: Sanford, Hsu, Telgarsky, "Transformers, parallel computation, and logarithmic
    depth", 2024, arXiv 2402.09268, section 4.

    **Arguments:**

    - `context`: the number of tokens.
    - `alphabet`: the number of different tokens.
    - `hops`: the number of hops.
    - `repeats`: whether neighbours may be equal. Tokens are then independent, and a model that
      copies its input is right more often: with 4 hops, 4 different tokens and a context of 32,
      61 % of the time instead of 35 %.

    **Raises:** `InputError` for less than three different tokens, which would only take turns,
    and for so many hops that words have less than one target on average.
    """

    context: PositiveInt
    alphabet: Annotated[int, Field(ge=3)] = 4
    hops: PositiveInt = 2
    repeats: bool = False

    def __post_init__(self):
        targets = np.sum(next(self.held_out(HELD_OUT)).targets != UNCOUNTED)
        if targets < HELD_OUT:
            raise InputError(
                f"hops={self.hops} are rare in words of model.context={self.context} tokens, "
                f"{self.alphabet} different ones: {HELD_OUT} of them have {targets} targets in "
                "all. Take fewer hops, a longer context or a smaller alphabet."
            )

    @property
    def vocabulary(self) -> int:
        return self.alphabet

    @property
    def tokens_per_sample(self) -> int:
        return self.context

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        shape = number, self.context
        words = random.integers(0, self.alphabet, shape, dtype=np.int32)
        if not self.repeats:
            words[:, 1:] = random.integers(1, self.alphabet, (number, self.context - 1))
            words = np.cumsum(words, axis=1, dtype=np.int32) % self.alphabet
        return Batch(words, hopped(words, self.hops))


def hopped(words: np.ndarray, hops: int) -> np.ndarray:
    """The token that `hops` hops lead to from each of `words: [samples, tokens]`; `UNCOUNTED`
    where one of them is not defined."""
    samples, tokens = words.shape
    rows = np.arange(samples)
    # The last position after each token of the alphabet; -1 where there is none.
    after = np.full((samples, words.max() + 1), -1)
    one = np.empty((samples, tokens), int)
    for i in range(tokens):
        if i:
            after[rows, words[:, i - 1]] = i
        one[:, i] = after[rows, words[:, i]]
    found = one
    for _ in range(hops - 1):
        found = np.where(found < 0, -1, np.take_along_axis(one, np.maximum(found, 0), axis=1))
    reached = np.take_along_axis(words, np.maximum(found, 0), axis=1)
    return np.where(found < 0, UNCOUNTED, reached)
