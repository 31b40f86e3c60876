"""Base classes of the tasks whose samples are drawn without end."""

import abc
import operator as op
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import numpy as np

from ..arguments import PositiveInt, checked
from ..errors import InputError
from ..models import LanguageModel, Model
from .losses import UNCOUNTED, AbstractLoss, Batch, InstanceCrossEntropy
from .task import AbstractTask, Part, in_parts


# Number of samples in a held-out part.
HELD_OUT = 1024


class AbstractSequences(AbstractTask):
    """Sequences of tokens that a generator draws: unlimited data.

    The batch of a step is drawn by `default_rng([seed, step])`. The samples for validation are
    drawn by `default_rng([0, 0, 1])` and those of the test by `default_rng([0, 0, 2])`, streams
    that no step of any seed has, so they are the same for every run.
    """

    model: ClassVar[type[Model]] = LanguageModel
    causal: ClassVar[bool] = True
    loss: AbstractLoss = InstanceCrossEntropy()

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


class AbstractSequencesByLength(AbstractSequences):
    """Instances of a problem whose length is drawn uniformly from a range, one for training
    and one for the held-out samples. All are padded to the longest of their range; what
    follows an instance has no target.

    **Arguments:**

    - `context`: the most tokens that the model sees.
    - `lengths`: the shortest and the longest instance in training.
    - `held_out_lengths`: the same of the held-out samples; default: `lengths`.
    - `start`: whether each instance begins with a token of its own, which has no target. A
      causal model without positions needs it: equal tokens at the beginning of a text have
      equal states for ever.

    **Raises:** `InputError` for a range that is empty or begins below 1, and for a context that
    is too short.
    """

    def __init__(
        self,
        context: int,
        lengths: tuple[int, int],
        held_out_lengths: tuple[int, int] | None = None,
        start: bool = False,
    ):
        self.start = start
        self.lengths = lengths
        self.held_out_lengths = lengths if held_out_lengths is None else held_out_lengths
        named = {"lengths": self.lengths, "held_out_lengths": self.held_out_lengths}
        for name, (shortest, longest) in named.items():
            at_least(f"the first of {name}", shortest, 1)
            if longest < shortest:
                raise InputError(
                    f"{name}={[shortest, longest]}: the shortest comes first; write "
                    f"{[longest, shortest]}."
                )
            needed = start + self.tokens_of(longest)
            if needed > context:
                raise InputError(
                    f"model.context={context} is too short: an instance of length {longest} "
                    f"({name}) has {needed} tokens. Set model.context={needed}, or take "
                    "shorter instances."
                )

    @abc.abstractmethod
    def tokens_of(self, length: int) -> int:
        """The number of tokens of an instance of that length, without the start."""

    @abc.abstractmethod
    def instances(self, lengths: np.ndarray, tokens: int, random: np.random.Generator) -> Batch:
        """An instance for each of `lengths: [samples]`, padded to so many tokens."""

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary + self.start}

    @property
    def tokens_per_sample(self) -> int:
        return self.start + self.tokens_of(self.lengths[1])

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        shortest, longest = self.held_out_lengths if held_out else self.lengths
        lengths = random.integers(shortest, longest + 1, number)
        drawn = self.instances(lengths, self.tokens_of(longest), random)
        if not self.start:
            return drawn
        starts = np.full((number, 1), self.vocabulary, np.int32)
        inputs = np.concatenate([starts, drawn.inputs], axis=1)
        targets = np.concatenate([uncounted(starts.shape), drawn.targets], axis=1)
        return Batch(inputs, targets)


def at_least(name: str, value: int, least: int) -> None:
    """Checks a size.

    **Raises:** `InputError` where it is smaller.
    """
    if value < least:
        raise InputError(f"{name} is {value}; give at least {least}.")


def uncounted(shape: tuple[int, ...]) -> np.ndarray:
    """Targets of which none counts yet."""
    return np.full(shape, UNCOUNTED, np.int32)
