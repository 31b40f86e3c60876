"""Base classes of the tasks."""

import abc
import dataclasses
import functools as ft
import hashlib
import operator as op
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, dataclass_transform

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ..arguments import PositiveInt, checked
from ..equation import TokenDomain, parts
from ..errors import InputError
from ..integration import Mesh
from ..models import Model
from ..models.model import once_for_each
from .buckets import by_length, sorted_batch, window_of
from .losses import UNCOUNTED, AbstractLoss, Batch, CrossEntropy, Mean


Class = TypeVar("Class", bound=type)


@dataclass_transform(eq_default=False)
def checked_dataclass(cls: Class) -> Class:
    """Makes a dataclass whose constructor checks its arguments by their annotations."""
    cls = dataclasses.dataclass(eq=False)(cls)
    cls.__init__ = checked(cls.__init__)
    return cls


# A held-out part: choices are made on the validation samples, results reported on the test.
Part: TypeAlias = Literal["validation", "test"]
# Drawn samples of a held-out part, and the training samples they are compared with.
HELD_OUT = 1024
_COMPARED = 4096
# If parts are kept apart, the last digit of the mark of a sample gives its part.
_PARTS: dict[int, Part] = {0: "validation", 1: "test"}


class AbstractTask(abc.ABC):
    """A task to learn: samples for training, validation and test, and the loss of a model.

    A batch depends only on the seed and the step, so a resumed run sees the same data.

    A task of your own defines `batch`, `held_out`, `context` or `tokens_per_sample`, `model`,
    `sizes`, and its `loss` if that is not the cross-entropy. A configuration names it by
    `data.name: package.module:Class`. Its constructor, or its class method `build` if there is
    one, gets by parameter name the keys of the section `data` (`path`, `tokenizer`,
    `vocabulary`, `validation`, `test`), its `options`, and the `context` and the `patch` of
    the section `model`.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True
    context: int
    # A function that builds the models which learn it.
    model: ClassVar[Callable[..., Model]]
    # The loss, and what else an evaluation measures.
    loss: AbstractLoss = CrossEntropy()
    # Whether a token may see only the tokens before it.
    causal: bool = False
    # Whether `model.context` is the number of tokens of a sample; images have their own.
    sized_by_context: ClassVar[bool] = True
    # Whether `validation` may be 1, which holds out all samples; and whether it is.
    holds_out_all: ClassVar[bool] = False
    whole: bool = False
    # The texts of the classes in the order of their numbers; `None` for numbers. A run keeps
    # them, and passes them as the option `labels` when it is evaluated on other data.
    labels: Sequence[str] | None = None
    # How many training samples `repeated` looks at; `None` for all.
    compared: ClassVar[int | None] = 1024

    @property
    def parts(self) -> tuple[Part, ...]:
        """The held-out parts of the data; validation is always one."""
        return "validation", "test"

    @property
    @abc.abstractmethod
    def sizes(self) -> dict[str, Any]:
        """The arguments of the model that the data decide, such as `vocabulary`."""

    @property
    def tokens_per_sample(self) -> int:
        """The number of tokens in each sample, for the rate in the log; default: `context`."""
        return self.context

    @abc.abstractmethod
    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The training batch of one step."""

    def of_each_shape(self, size: int, seed: int) -> list[Batch]:
        """A training batch of each shape, so that their programs are compiled before the first
        step; by default all have one shape."""
        return [self.batch(0, size, seed)]

    def part_of_batch(self, step: int, size: int, seed: int, rows: slice) -> Batch:
        """The rows of a batch that one process needs. Override it if samples are costly."""
        own, shared = self.batch(step, size, seed).divided()
        return eqx.combine(jax.tree.map(lambda x: x[rows], own), shared)

    @abc.abstractmethod
    def held_out(
        self, size: int, samples: int | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        """The samples of one of the `parts` in batches of at most `size`: all, or `samples` of
        them, evenly spread."""

    @checked
    def on(self, mesh: Mesh) -> "AbstractTask":
        """The samples on a mesh; only its number of tokens matters."""
        return self if mesh.tokens is None else self.with_tokens(mesh.tokens)

    def with_tokens(self, tokens: int | tuple[int, int]) -> "AbstractTask":
        """The task with another number of tokens: functions at other points (along each axis),
        windows of another length, images in more or fewer patches. `on` calls it."""
        raise InputError(
            f"the samples of {type(self).__name__} have {self.tokens_per_sample} tokens, and "
            f"no others; leave tokens={tokens} out."
        )

    def contents(self, batch: Batch) -> list[bytes]:
        """The inputs and targets of each sample as bytes: the tokens of a causal task up to the
        last target that counts, and functions without points of weight 0, which are padding."""
        leaves = [np.asarray(x) for x in jax.tree.leaves(batch.divided()[0])]
        shape = leaves[0].shape[:2]
        kept: Iterable[Any] = [slice(None)] * len(leaves[0])
        if self.causal and {(x.dtype.kind, x.shape) for x in leaves} == {("i", shape)}:
            uncounted = np.argmax(leaves[-1][:, ::-1] != UNCOUNTED, axis=1)
            kept = [slice(end) for end in shape[1] - uncounted]
        for domain in parts(batch.inputs, TokenDomain):
            if domain.of_samples and domain.weights is not None:
                kept = np.asarray(domain.weights) > 0
        return [
            b"".join(
                (x[i, own] if x.ndim > 1 and x.shape[:2] == shape else x[i]).tobytes()
                for x in leaves
            )
            for i, own in enumerate(kept)
        ]

    def repeated(self) -> dict[Part, tuple[int, int]]:
        """For each part the number of samples that are also training samples, and the number
        of all samples. `compared` says how many training samples are looked at."""
        learned = self._learned()
        found: dict[Part, tuple[int, int]] = {}
        for part in self.parts:
            marks = [x for batch in self.held_out(64, part=part) for x in self._marks(batch)]
            found[part] = sum(x in learned for x in marks), len(marks)
        return found

    def _learned(self) -> Set[int]:
        """The marks of the training samples that `repeated` looks at."""
        batches = (self.batch(step, 64, seed=0) for step in range((self.compared or 0) // 64))
        return {x for batch in batches for x in self._marks(batch)}

    def _marks(self, batch: Batch) -> list[int]:
        """A hash of 64 bits of the contents of each sample."""
        digests = (hashlib.blake2b(x, digest_size=8).digest() for x in self.contents(batch))
        return [int.from_bytes(x, "little") for x in digests]

    def save(self, tokenizer: Path) -> None:  # noqa: B027
        """Writes what the model needs without the data: a tokenizer."""

    def fingerprint(self) -> str:
        """A checksum of all held-out samples and the first training batches. A run knows its
        data by it."""
        held_out = (batch for part in self.parts for batch in self.held_out(64, part=part))
        seen = (self.batch(step, 64, seed=0) for step in range(16))
        return checksum_of_all((*held_out, *seen))

    @classmethod
    def saved_sizes(cls, tokenizer: Path) -> dict[str, Any] | None:
        """The `sizes` from what `save` wrote; `None` if the data have to be read."""
        return None

    def further_means(self, batch: Batch, loss: Mean) -> dict[str, Mean]:
        """Further means of a batch, from its loss; none by default."""
        return {}

    def figures(self, loss: float) -> dict[str, float]:
        """Further figures that follow from a mean loss; none by default."""
        return {}

    def sample(self, model: Model, length: int) -> str | None:
        """Text of `length` tokens that the trained model writes; `None` for no text."""
        return None


class AbstractDataSet(AbstractTask):
    """A task whose samples are all in memory: `data` has columns for each part.

    Samples of several lengths say by `lengths` to which one each is padded. Then a batch holds
    samples of one of these lengths, or of two at most, and `chosen` pads to the longer.
    """

    data: Mapping[str, tuple[Any, ...]]
    compared = None

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation", "test") if len(self.data["test"][0]) else ("validation",)

    @abc.abstractmethod
    def chosen(self, part: str, samples: np.ndarray) -> Batch:
        """The samples of a part that have these numbers."""

    def lengths(self, part: str) -> np.ndarray | None:
        """The length to which each sample of a part is padded; `None` if all have one."""
        return None

    def _learned(self) -> Set[int]:
        every = in_parts(range(len(self.data["training"][0])), 64, None)
        return {x for some in every for x in self._marks(self.chosen("training", some))}

    def batch(self, step: int, size: int, seed: int) -> Batch:
        number = len(self.data["training"][0])
        lengths = self.lengths("training")
        if lengths is None or lengths.min() == lengths.max():
            return self.chosen("training", in_passes(step, size, number, seed))
        window = window_of(size, number)
        drawn = in_passes(step // window, window * size, number, seed)
        samples = sorted_batch(step, size, seed, lengths, drawn, window)
        return self.chosen("training", samples)

    def of_each_shape(self, size: int, seed: int) -> list[Batch]:
        lengths = self.lengths("training")
        if lengths is None:
            return [self.batch(0, size, seed)]
        buckets = (np.flatnonzero(lengths == length) for length in np.unique(lengths))
        return [self.chosen("training", np.resize(bucket, size)) for bucket in buckets]

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        number = len(self.data[part][0])
        lengths = self.lengths(part)
        if lengths is None:
            batches = in_parts(range(number), size, samples)
        else:
            batches = by_length(spread(number, samples), size, lengths)
        for some in batches:
            yield self.chosen(part, some)

    def fingerprint(self) -> str:
        """A checksum of all samples."""
        return checksum_of_all([self.data[x] for x in ("training", "validation", "test")])


class AbstractDrawn(AbstractTask):
    """A task whose samples are drawn at random, without end.

    `default_rng([seed, step])` draws the batch of a step, `default_rng([0, 0, 1])` the
    validation samples and `default_rng([0, 0, 2])` the test samples. No training step has one
    of these two streams, so held-out samples are the same for every run.

    If held-out samples are found among 4,096 training samples, a hash of its `contents` assigns
    each sample to one part, one in ten to validation and one in ten to the test, and samples
    drawn for another part are dropped. So no two parts share a sample. With fewer than 1,000
    different samples to learn, or fewer than 512 to hold out, this would leave too few: then
    held-out samples are also learned, as `repeated` says.
    """

    compared = _COMPARED

    @checked
    def on(self, mesh: Mesh) -> AbstractTask:
        # Each step asks for it, and each new task compares thousands of its samples.
        return self if mesh.tokens is None else _with_tokens(self, mesh.tokens)

    def given(self, name: str, held_out: bool) -> Any:
        """An option; for held-out samples their own value if they have one."""
        own = getattr(self, f"held_out_{name}") if held_out else None
        return getattr(self, name) if own is None else own

    @abc.abstractmethod
    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        """Draws `number` samples."""

    def batch(self, step: int, size: int, seed: int) -> Batch:
        return self._drawn_for("training", size, np.random.default_rng([seed, step]))

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        drawn = _held_out(self, part)
        for chosen in in_parts(range(HELD_OUT), size, samples):
            yield jax.tree.map(op.itemgetter(chosen), drawn)

    def _learned(self) -> Set[int]:
        return _compared(self)[1]

    def _drawn_for(
        self, part: Part | Literal["training"], number: int, random: np.random.Generator
    ) -> Batch:
        found = []
        while number:
            drawn = self.draw(number, random, held_out=part != "training")
            if not _compared(self)[0]:
                return drawn
            own = [_PARTS.get(mark % 10, "training") == part for mark in self._marks(drawn)]
            found.append(jax.tree.map(op.itemgetter(own), drawn))
            number -= sum(own)
        return jax.tree.map(lambda *x: np.concatenate(x), *found)


@once_for_each
def _with_tokens(task: AbstractDrawn, tokens: int | tuple[int, int]) -> AbstractTask:
    return task.with_tokens(tokens)


@once_for_each
def _held_out(task: AbstractDrawn, part: Part) -> Batch:
    stream = 1 + task.parts.index(part)
    return task._drawn_for(part, HELD_OUT, np.random.default_rng([0, 0, stream]))


@once_for_each
def _compared(task: AbstractDrawn) -> tuple[bool, Set[int]]:
    """Whether the parts are kept apart, and the marks of training samples."""
    held_out: set[int] = set()
    learned: set[int] = set()
    shapes = []
    for part in (False, True):
        drawn = task.draw(1, np.random.default_rng(0), held_out=part)
        shapes.append([np.shape(x) for x in jax.tree.leaves(drawn)])
    # Other shapes are other samples. Only the samples of a causal task are cut to one shape.
    same = task.causal or shapes[0] == shapes[1]
    for stream, _ in enumerate(task.parts if same else (), 1):
        drawn = task.draw(HELD_OUT, np.random.default_rng([0, 0, stream]), held_out=True)
        held_out.update(task._marks(drawn))
    for step in range(_COMPARED // 64):
        drawn = task.draw(64, np.random.default_rng([0, step]), held_out=False)
        learned.update(task._marks(drawn))
        # A tenth of each has to be enough.
        enough = len(learned) >= 1000 and len(held_out) >= HELD_OUT / 2
        if enough and held_out & learned:
            return True, {mark for mark in learned if mark % 10 not in _PARTS}
    return False, learned


def in_passes(step: int, size: int, number: int, seed: int) -> np.ndarray:
    """The indices of the samples of a step; each pass over all has a new random order."""
    positions = np.arange(step * size, (step + 1) * size)
    passes = positions // number
    chosen = np.empty_like(positions)
    for n in np.unique(passes):
        chosen[passes == n] = _order(number, int(n), seed)[positions[passes == n] % number]
    return chosen


@ft.lru_cache(maxsize=2)
def _order(number: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(number)


def spread(number: int, samples: int | None) -> np.ndarray:
    """At most `samples` of the indices `0 … number - 1`, evenly spread; by default all."""
    chosen = number if samples is None else min(samples, number)
    return np.arange(chosen) * number // max(chosen, 1)


def in_parts(indices: range, size: int, samples: int | None) -> Iterator[np.ndarray]:
    """Indices chosen by `spread`, in parts of at most `size`."""
    chosen = indices.start + indices.step * spread(len(indices), samples)
    for first in range(0, len(chosen), size):
        yield chosen[first : first + size]


def one_number(tokens: int | tuple[int, int]) -> int:
    if isinstance(tokens, tuple):
        raise InputError(f"{tokens} are rows and columns; give one number of tokens.")
    return tokens


def checksum_of_all(data: PyTree) -> str:
    """A checksum of arrays, their types and shapes."""
    digest = hashlib.sha256()
    for x in map(np.asarray, jax.tree.leaves(data)):
        digest.update(f"{x.dtype}{x.shape}".encode())
        digest.update(x.tobytes())
    return digest.hexdigest()
