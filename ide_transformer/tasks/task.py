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


# A held-out part: choose on validation samples, report on test samples.
Part: TypeAlias = Literal["validation", "test"]
# The number of samples drawn for a held-out part, and of training samples compared with them.
HELD_OUT = 1024
_COMPARED = 4096
# The part of a sample by the last digit of its hash, if parts share no samples.
_PARTS: dict[int, Part] = {0: "validation", 1: "test"}


class AbstractTask(abc.ABC):
    """Samples for training, validation and test, and the loss of a model on them.

    A batch depends only on the seed and the step, so a resumed run sees the same data.

    A task of your own defines `batch`, `held_out`, `context` or `tokens_per_sample`, `model`,
    `sizes`, and its `loss` unless that is the cross-entropy. A configuration names it by
    `data.name: package.module:Class`. Its class method `build`, or else its constructor, gets
    by parameter name the keys of the section `data` (`path`, `tokenizer`, `vocabulary`,
    `validation`, `test`), `data.options`, `model.context` and `model.patch`.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True
    context: int
    # Builds the models that learn it.
    model: ClassVar[Callable[..., Model]]
    loss: AbstractLoss = CrossEntropy()
    # Whether a token may see only the tokens before it.
    causal: bool = False
    # Whether `model.context` is the number of tokens of a sample; images have their own.
    sized_by_context: ClassVar[bool] = True
    # Whether `validation` may be 1, which holds out all samples; and whether it is 1.
    may_hold_out_all: ClassVar[bool] = False
    holds_out_all: bool = False
    # The name of each class; `None` if classes are numbers. A run saves them and passes them as
    # the option `labels` when it is evaluated on other data.
    labels: Sequence[str] | None = None
    # The number of training samples with which `repeated` compares; `None` for all.
    compared: ClassVar[int | None] = 1024

    @property
    def parts(self) -> tuple[Part, ...]:
        """The held-out parts of the data, always with validation."""
        return "validation", "test"

    @property
    @abc.abstractmethod
    def sizes(self) -> dict[str, Any]:
        """The arguments of the model that follow from the data, such as `vocabulary`."""

    @property
    def tokens_per_sample(self) -> int:
        """The tokens of each sample, for the rate in the log; default: `context`."""
        return self.context

    @abc.abstractmethod
    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The training batch of a step."""

    def of_each_shape(self, size: int, seed: int) -> list[Batch]:
        """A training batch of each shape, so that all programs are compiled before the first
        step. By default all batches have one shape."""
        return [self.batch(0, size, seed)]

    def part_of_batch(self, step: int, size: int, seed: int, rows: slice) -> Batch:
        """The rows of a batch that one process needs. Override it if samples are costly."""
        of_samples, shared = self.batch(step, size, seed).divided()
        return eqx.combine(jax.tree.map(lambda x: x[rows], of_samples), shared)

    @abc.abstractmethod
    def held_out(
        self, size: int, samples: int | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        """Batches of at most `size` samples of a part: all, or `samples` of them, evenly
        spread."""

    @checked
    def on(self, mesh: Mesh) -> "AbstractTask":
        """The task on a mesh, which may set another number of tokens."""
        return self if mesh.tokens is None else self.with_tokens(mesh.tokens)

    def with_tokens(self, tokens: int | tuple[int, int]) -> "AbstractTask":
        """The task with another number of tokens: points along each axis, tokens of a window,
        or patches of an image. `on` calls it."""
        raise InputError(
            f"tokens={tokens}: {type(self).__name__} always has {self.tokens_per_sample} "
            "tokens; drop it."
        )

    def contents(self, batch: Batch) -> list[bytes]:
        """The inputs and targets of each sample as bytes. Causal tasks: up to the last target
        that counts. Functions: without padding, which are points of weight 0."""
        leaves = [np.asarray(x) for x in jax.tree.leaves(batch.divided()[0])]
        shape = leaves[0].shape[:2]
        tokens: Iterable[Any] = [slice(None)] * len(leaves[0])
        if self.causal and {(x.dtype.kind, x.shape) for x in leaves} == {("i", shape)}:
            uncounted = np.argmax(leaves[-1][:, ::-1] != UNCOUNTED, axis=1)
            tokens = [slice(end) for end in shape[1] - uncounted]
        for domain in parts(batch.inputs, TokenDomain):
            if domain.of_samples and domain.weights is not None:
                tokens = np.asarray(domain.weights) > 0
        return [
            b"".join(
                (x[i, selected] if x.ndim > 1 and x.shape[:2] == shape else x[i]).tobytes()
                for x in leaves
            )
            for i, selected in enumerate(tokens)
        ]

    def repeated(self) -> dict[Part, tuple[int, int]]:
        """For each part how many of its samples are also training samples, and how many it
        has. Compares with `compared` training samples."""
        learned = self._learned_hashes()
        counts: dict[Part, tuple[int, int]] = {}
        for part in self.parts:
            hashes = [x for batch in self.held_out(64, part=part) for x in self._hashes(batch)]
            counts[part] = sum(x in learned for x in hashes), len(hashes)
        return counts

    def _learned_hashes(self) -> Set[int]:
        """The hashes of the training samples with which `repeated` compares."""
        batches = (self.batch(step, 64, seed=0) for step in range((self.compared or 0) // 64))
        return {x for batch in batches for x in self._hashes(batch)}

    def _hashes(self, batch: Batch) -> list[int]:
        """A 64-bit hash of the contents of each sample."""
        digests = (hashlib.blake2b(x, digest_size=8).digest() for x in self.contents(batch))
        return [int.from_bytes(x, "little") for x in digests]

    def save(self, tokenizer: Path) -> None:  # noqa: B027
        """Writes the tokenizer, if there is one, for use without the data."""

    def fingerprint(self) -> str:
        """A checksum of the held-out samples and the first training batches. A run compares it
        to notice other data."""
        held_out = (batch for part in self.parts for batch in self.held_out(64, part=part))
        learned = (self.batch(step, 64, seed=0) for step in range(16))
        return checksum_of_all((*held_out, *learned))

    @classmethod
    def saved_sizes(cls, tokenizer: Path) -> dict[str, Any] | None:
        """The `sizes` from the file that `save` wrote; `None` if they need the data."""
        return None

    def further_means(self, batch: Batch, loss: Mean) -> dict[str, Mean]:
        """Further means to report of a batch, from its loss; none by default."""
        return {}

    def figures(self, loss: float) -> dict[str, float]:
        """Further figures to report, from the mean loss; none by default."""
        return {}

    def sample(self, model: Model, length: int) -> str | None:
        """Text of `length` tokens that a model generates; `None` if the task has no text."""
        return None


class AbstractDataSet(AbstractTask):
    """A task whose samples are all in memory: `data` has the columns of each part.

    For samples of several lengths, `lengths` returns the length to which each is padded. A
    batch then has samples of one or two of these lengths; `select` pads to the longer one.
    """

    data: Mapping[str, tuple[Any, ...]]
    compared = None

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation", "test") if len(self.data["test"][0]) else ("validation",)

    @abc.abstractmethod
    def select(self, part: str, samples: np.ndarray) -> Batch:
        """The samples of a part with these indices."""

    def lengths(self, part: str) -> np.ndarray | None:
        """The length to which each sample of a part is padded; `None` if all are equal."""
        return None

    def _learned_hashes(self) -> Set[int]:
        chunks = in_parts(range(len(self.data["training"][0])), 64, None)
        batches = (self.select("training", samples) for samples in chunks)
        return {x for batch in batches for x in self._hashes(batch)}

    def batch(self, step: int, size: int, seed: int) -> Batch:
        num_samples = len(self.data["training"][0])
        lengths = self.lengths("training")
        if lengths is None or lengths.min() == lengths.max():
            return self.select("training", in_passes(step, size, num_samples, seed))
        window = window_of(size, num_samples)
        drawn = in_passes(step // window, window * size, num_samples, seed)
        samples = sorted_batch(step, size, seed, lengths, drawn, window)
        return self.select("training", samples)

    def of_each_shape(self, size: int, seed: int) -> list[Batch]:
        lengths = self.lengths("training")
        if lengths is None:
            return [self.batch(0, size, seed)]
        buckets = (np.flatnonzero(lengths == length) for length in np.unique(lengths))
        return [self.select("training", np.resize(bucket, size)) for bucket in buckets]

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        num_samples = len(self.data[part][0])
        lengths = self.lengths(part)
        if lengths is None:
            batches = in_parts(range(num_samples), size, samples)
        else:
            batches = by_length(spread(num_samples, samples), size, lengths)
        for indices in batches:
            yield self.select(part, indices)

    def fingerprint(self) -> str:
        """A checksum of all samples."""
        return checksum_of_all([self.data[x] for x in ("training", "validation", "test")])


class AbstractDrawn(AbstractTask):
    """A task that draws any number of random samples.

    `default_rng([seed, step])` draws the batch of a step, `default_rng([0, 0, 1])` the
    validation samples and `default_rng([0, 0, 2])` the test samples. No training step uses the
    last two, so held-out samples are the same for every run.

    If 4,096 training samples contain held-out ones, a hash of its `contents` assigns each
    sample to one part: a tenth to validation, a tenth to the test. Samples drawn for another
    part are dropped, so that parts share no sample. With fewer than 1,000 different training
    samples, or fewer than 512 held-out ones, too few would be left. Then held-out samples are
    also learned, which `repeated` reports.
    """

    compared = _COMPARED

    @checked
    def on(self, mesh: Mesh) -> AbstractTask:
        # Cached, since a new task first compares thousands of its samples.
        return self if mesh.tokens is None else _with_tokens(self, mesh.tokens)

    def get_option(self, name: str, held_out: bool) -> Any:
        """The option `name`; for held-out samples `held_out_{name}`, unless that is `None`."""
        value = getattr(self, f"held_out_{name}") if held_out else None
        return getattr(self, name) if value is None else value

    @abc.abstractmethod
    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        """Draws `number` samples."""

    def batch(self, step: int, size: int, seed: int) -> Batch:
        return self._draw_for("training", size, np.random.default_rng([seed, step]))

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        drawn = _draw_held_out(self, part)
        for indices in in_parts(range(HELD_OUT), size, samples):
            yield jax.tree.map(op.itemgetter(indices), drawn)

    def _learned_hashes(self) -> Set[int]:
        return _compare_parts(self)[1]

    def _draw_for(
        self, part: Part | Literal["training"], num_samples: int, random: np.random.Generator
    ) -> Batch:
        batches = []
        while num_samples:
            drawn = self.draw(num_samples, random, held_out=part != "training")
            if not _compare_parts(self)[0]:
                return drawn
            in_part = [_PARTS.get(x % 10, "training") == part for x in self._hashes(drawn)]
            batches.append(jax.tree.map(op.itemgetter(in_part), drawn))
            num_samples -= sum(in_part)
        return jax.tree.map(lambda *x: np.concatenate(x), *batches)


@once_for_each
def _with_tokens(task: AbstractDrawn, tokens: int | tuple[int, int]) -> AbstractTask:
    return task.with_tokens(tokens)


@once_for_each
def _draw_held_out(task: AbstractDrawn, part: Part) -> Batch:
    stream = 1 + task.parts.index(part)
    return task._draw_for(part, HELD_OUT, np.random.default_rng([0, 0, stream]))


@once_for_each
def _compare_parts(task: AbstractDrawn) -> tuple[bool, Set[int]]:
    """Whether hashes assign samples to parts, and the hashes of training samples."""
    held_out: set[int] = set()
    learned: set[int] = set()
    shapes = []
    for is_held_out in (False, True):
        drawn = task.draw(1, np.random.default_rng(0), held_out=is_held_out)
        shapes.append([np.shape(x) for x in jax.tree.leaves(drawn)])
    # Samples of other shapes differ, except in a causal task, which cuts them to one shape.
    may_share = task.causal or shapes[0] == shapes[1]
    for stream, _ in enumerate(task.parts if may_share else (), 1):
        drawn = task.draw(HELD_OUT, np.random.default_rng([0, 0, stream]), held_out=True)
        held_out.update(task._hashes(drawn))
    for step in range(_COMPARED // 64):
        drawn = task.draw(64, np.random.default_rng([0, step]), held_out=False)
        learned.update(task._hashes(drawn))
        are_enough = len(learned) >= 1000 and len(held_out) >= HELD_OUT / 2
        if are_enough and held_out & learned:
            return True, {x for x in learned if x % 10 not in _PARTS}
    return False, learned


def in_passes(step: int, size: int, num_samples: int, seed: int) -> np.ndarray:
    """The indices of the samples of a step, in a new random order for each pass over all."""
    positions = np.arange(step * size, (step + 1) * size)
    passes = positions // num_samples
    indices = np.empty_like(positions)
    for n in np.unique(passes):
        order = _order(num_samples, int(n), seed)
        indices[passes == n] = order[positions[passes == n] % num_samples]
    return indices


@ft.lru_cache(maxsize=2)
def _order(num_samples: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_samples)


def spread(num_samples: int, samples: int | None) -> np.ndarray:
    """At most `samples` of the indices `0 … num_samples - 1`, evenly spread; default: all."""
    size = num_samples if samples is None else min(samples, num_samples)
    return np.arange(size) * num_samples // max(size, 1)


def in_parts(indices: range, size: int, samples: int | None) -> Iterator[np.ndarray]:
    """All indices, or `samples` of them, evenly spread, in arrays of at most `size`."""
    selected = indices.start + indices.step * spread(len(indices), samples)
    for first in range(0, len(selected), size):
        yield selected[first : first + size]


def one_number(tokens: int | tuple[int, int]) -> int:
    """**Raises:** `InputError` for a pair of numbers."""
    if isinstance(tokens, tuple):
        raise InputError(f"tokens={tokens}: pass one number, not rows and columns.")
    return tokens


def checksum_of_all(data: PyTree) -> str:
    """A checksum of arrays, their types and shapes."""
    digest = hashlib.sha256()
    for x in map(np.asarray, jax.tree.leaves(data)):
        digest.update(f"{x.dtype}{x.shape}".encode())
        digest.update(x.tobytes())
    return digest.hexdigest()
