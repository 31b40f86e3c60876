"""Tasks with instances of any length: words of a group, parities and sums."""

import abc
import dataclasses
import itertools
from typing import Annotated, Any, TypeAlias

import numpy as np

from ide_transformer.arguments import Bound, PositiveInt, at_least, at_most
from ide_transformer.contrib.sequences import AbstractSequences
from ide_transformer.errors import InputError
from ide_transformer.tasks import UNCOUNTED, Batch, checked_dataclass, one_number


# The shortest and the longest length.
Lengths: TypeAlias = Annotated[
    tuple[PositiveInt, PositiveInt],
    Bound("the shortest length, then the longest", lambda lengths: lengths[0] <= lengths[1]),
]


@checked_dataclass
class AbstractSequencesByLength(AbstractSequences):
    """Instances of random length, uniform in a range. Training and held-out samples may have
    different ranges. Instances are padded to the longest of their range; padding has no target.
    The `tokens` of a mesh set the length of the longest instance, so a schedule of meshes can
    begin with short instances.

    **Arguments:**

    - `context`: the largest number of tokens that the model sees.
    - `lengths`: the shortest and the longest instance in training.
    - `held_out_lengths`: the range for held-out samples; default: `lengths`.
    - `start`: whether each instance begins with a start token, without a target. A causal model
      without positions needs it, to tell equal leading tokens apart.
    """

    context: PositiveInt
    lengths: Lengths
    held_out_lengths: Lengths | None = None
    start: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self):
        for held_out in (False, True):
            name = "held_out_lengths" if held_out else "lengths"
            _, longest = self.get_option("lengths", held_out)
            tokens = self.start + self.tokens_of(longest)
            if tokens > self.context:
                raise InputError(
                    f"model.context={self.context}: an instance of length {longest} ({name}) "
                    f"has {tokens} tokens. Set model.context={tokens}, or use shorter ones."
                )

    @abc.abstractmethod
    def tokens_of(self, length: int) -> int:
        """The number of tokens of an instance, without the start."""

    @abc.abstractmethod
    def instances(self, lengths: np.ndarray, tokens: int, random: np.random.Generator) -> Batch:
        """An instance for each of `lengths: [samples]`, padded to `tokens`."""

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary + self.start}

    @property
    def tokens_per_sample(self) -> int:
        return self.start + self.tokens_of(self.lengths[1])

    def with_tokens(self, tokens: int | tuple[int, int]) -> "AbstractSequencesByLength":
        tokens = one_number(tokens)
        for longest in range(1, tokens + 1):
            if self.start + self.tokens_of(longest) == tokens:
                lengths = min(self.lengths[0], longest), longest
                return dataclasses.replace(self, lengths=lengths, held_out_lengths=None)
        raise InputError(
            f"tokens={tokens}: no {type(self).__name__} with start={self.start} has {tokens} "
            "tokens."
        )

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        shortest, longest = self.get_option("lengths", held_out)
        lengths = random.integers(shortest, longest + 1, number)
        batch = self.instances(lengths, self.tokens_of(longest), random)
        if not self.start:
            return batch
        before = ((0, 0), (1, 0))
        inputs = np.pad(batch.inputs, before, constant_values=self.vocabulary)
        return Batch(inputs, np.pad(batch.targets, before, constant_values=UNCOUNTED))


class Parity(AbstractSequencesByLength):
    """Whether the number of ones among some bits is odd.

    `inputs: [samples, tokens]`: `length` bits, then the token 2, then 3 as padding. `targets`:
    0 or 1 at the token 2 only.

    Source: Anil et al., "Exploring length generalization in large language models", 2022,
    arXiv 2207.04901.
    """

    vocabulary = 4

    def tokens_of(self, length: int) -> int:
        return length + 1

    def instances(self, lengths: np.ndarray, tokens: int, random: np.random.Generator) -> Batch:
        shape = len(lengths), tokens
        bits = random.integers(0, 2, shape, dtype=np.int32)
        after = np.arange(tokens) - lengths[:, None]
        odd = np.sum(bits * (after < 0), axis=1, keepdims=True) % 2
        inputs = np.where(after < 0, bits, np.where(after == 0, 2, 3))
        targets = np.where(after == 0, odd, UNCOUNTED)
        return Batch(inputs.astype(np.int32), targets.astype(np.int32))


@checked_dataclass
class WordProblem(AbstractSequencesByLength):
    """The word problem of the symmetric group `S_n`: tokens are permutations of `n` letters,
    and the target at each is the product so far, `g_1 g_2 … g_i`, where `(g h)(x) = g(h(x))`.

    S₃ is solvable, S₅ is not. The word problem of S₅ is complete for the circuits NC¹, while a
    Transformer with a fixed number of layers is in TC⁰, so longer words should need more
    layers.

    `inputs, targets: [samples, tokens]`, both in `0 … n! - 1`, the permutations in the order of
    `itertools.permutations`. Tokens after a word are random and have no target.

    Source: Merrill, Petty, Sabharwal, "The illusion of state in state-space models", 2024,
    arXiv 2404.08819.

    **Arguments:**

    - `degree`: `n`, from 2 to 6. With 2 the targets are sums of bits modulo 2.
    - `swaps`: whether the tokens are only the `n (n - 1) / 2` swaps of two letters. They
      generate all permutations, and far fewer pairs have to be learned.
    - other arguments: see `AbstractSequencesByLength`.
    """

    # The table of products has 0.5 million entries for S_6, and 25 million for S_7.
    degree: Annotated[int, at_least(2), at_most(6)] = 3
    swaps: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.swaps and self.degree == 2:
            raise InputError(
                "degree=2 and swaps=True: all words are alike, since there is one swap; set "
                "degree=3 or more."
            )
        elements = np.array(list(itertools.permutations(range(self.degree))))
        moved = (elements != np.arange(self.degree)).sum(axis=1)
        self.tokens = np.flatnonzero((moved == 2) | (not self.swaps)).astype(np.int32)
        # Permutations as numbers in the same order.
        places = self.degree ** np.arange(self.degree)[::-1]
        products = np.searchsorted(elements @ places, elements[:, elements] @ places)
        self.products = products.astype(np.int32)  # [g, h]
        self.vocabulary = len(self.products)

    def tokens_of(self, length: int) -> int:
        return length

    def instances(self, lengths: np.ndarray, tokens: int, random: np.random.Generator) -> Batch:
        shape = len(lengths), tokens
        words = self.tokens[random.integers(0, len(self.tokens), shape, dtype=np.int32)]
        targets = words.copy()
        for i in range(1, tokens):
            targets[:, i] = self.products[targets[:, i - 1], words[:, i]]
        inside = np.arange(tokens) < lengths[:, None]
        return Batch(words, np.where(inside, targets, np.int32(UNCOUNTED)))


@checked_dataclass
class ColumnAddition(AbstractSequencesByLength):
    """The sum of two numbers of `length` digits in columns, the least digit first:
    `a_1 b_1 a_2 b_2 … =`. The target at each `b_i` is the digit `c_i` of the sum, and at `=`
    the last carry. Only carries travel further than one column.

    `inputs: [samples, 2 length + 1]`: the digits, `base` for `=`, and `base + 1` as padding.

    Source of sums with the least digit first: Lee et al., "Teaching arithmetic to small
    Transformers", 2023, arXiv 2307.03381.

    **Arguments:**

    - `base`: the base of the digits, at least 2.
    - other arguments: see `AbstractSequencesByLength`.
    """

    base: Annotated[int, at_least(2)] = 10

    def __post_init__(self):
        super().__post_init__()
        self.vocabulary = self.base + 2

    def tokens_of(self, length: int) -> int:
        return 2 * length + 1

    def instances(self, lengths: np.ndarray, tokens: int, random: np.random.Generator) -> Batch:
        samples = len(lengths)
        digits = tokens // 2
        inside = np.arange(digits) < lengths[:, None]
        numbers = random.integers(0, self.base, (2, samples, digits)) * inside
        sums = np.concatenate([numbers.sum(0), np.zeros((samples, 1), int)], axis=1)
        for i in range(digits):
            sums[:, i + 1] += sums[:, i] // self.base
        sums %= self.base
        columns = np.where(inside, numbers, self.base + 1)
        inputs = np.full((samples, tokens), self.base + 1, np.int32)
        inputs[:, :-1] = np.moveaxis(columns, 0, 2).reshape(samples, -1)
        targets = np.full_like(inputs, UNCOUNTED)
        targets[:, 1::2] = np.where(inside, sums[:, :-1], targets[:, 1::2])
        rows = np.arange(samples)
        inputs[rows, 2 * lengths] = self.base
        targets[rows, 2 * lengths] = sums[rows, lengths]
        return Batch(inputs, targets)
