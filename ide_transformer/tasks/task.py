"""Base class of the tasks, and their loss."""

import abc
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..models import AbstractModel


# A target of `Instances` that is not counted.
UNCOUNTED = -1


class Batch(NamedTuple):
    """Inputs of the model and the integers it should predict, `targets: [batch, …]`."""

    inputs: np.ndarray | Array
    targets: np.ndarray | Array


class Instances(Batch):
    """A batch of instances of a problem, with several targets each. A target of -1 is not
    counted, and an evaluation also says of which part of the instances all targets are right,
    the exact match."""


class Loss(NamedTuple):
    """The loss of a batch: the `objective` is minimised; `loss` is the part of it that is the
    mean cross-entropy over targets. Of `count` targets, `correct` were the most likely output;
    `exact` is the number of samples of which all targets were.
    """

    objective: Float[Array, ""]
    loss: Float[Array, ""]
    correct: Int[Array, ""]
    count: int | Int[Array, ""]
    exact: Int[Array, ""]
    field_evaluations: Float[Array, ""]


class AbstractTask(abc.ABC):
    """Samples to learn from and samples to test on. The loss is the cross-entropy of integer
    targets, see `cross_entropy`.

    A batch is a function of the seed and the step alone, so that a resumed run sees the
    data that the interrupted one would have seen.

    A task of your own defines `batch`, `held_out`, `tokens_per_sample`, `held_out_name`,
    `model` and `sizes`. A configuration names it by `data.name: package.module:Class`; its
    constructor, or its class method `build` where it has one, then gets by parameter name
    the keys of the section `data` (`path`, `tokenizer`, `vocabulary`, `validation`), its
    `options`, and of the section `model` the `context` and the `patch`.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True
    # The name of the held-out part: `validation` or `test`.
    held_out_name: ClassVar[str]
    # The class of the models that learn it.
    model: ClassVar[type[AbstractModel]]
    # Whether a token may see only those before it.
    causal: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def sizes(self) -> dict[str, Any]:
        """The arguments of the model that the data decide, such as `vocabulary`."""

    @property
    @abc.abstractmethod
    def tokens_per_sample(self) -> int:
        """The number of tokens in each sample, for the rate in the log."""

    @abc.abstractmethod
    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The training batch of one step."""

    @abc.abstractmethod
    def held_out(self, size: int, samples: int | None = None) -> Iterator[Batch]:
        """The held-out samples in batches of at most `size`: all of them, or about `samples`
        of them evenly spread."""

    def save(self, tokenizer: Path) -> None:  # noqa: B027
        """Writes what is needed to use the model without the data; nothing by default.

        **Arguments:**

        - `tokenizer`: the file for a tokenizer.
        """

    def fingerprint(self) -> str:
        """A checksum of the data, by which a resumed run knows them: of all held-out samples
        and of the first training batches."""
        digest = hashlib.sha256()
        seen = (self.batch(step, 64, seed=0) for step in range(16))
        for x in itertools.chain.from_iterable((*self.held_out(64), *seen)):
            digest.update(np.asarray(x).tobytes())
        return digest.hexdigest()

    @classmethod
    def saved_sizes(cls, tokenizer: Path) -> dict[str, Any] | None:
        """The `sizes` from what `save` wrote; `None` where the data have to be read."""
        return None

    def figures(self, loss: float) -> dict[str, float]:
        """Further figures that follow from a mean loss; none by default."""
        return {}

    def sample(self, model: AbstractModel, length: int) -> str | None:
        """Text of `length` tokens that the trained model writes; `None` for no text."""
        return None


def spread(indices: np.ndarray, samples: int | None) -> np.ndarray:
    """About `samples` of the indices, evenly spread; all of them by default."""
    return indices if samples is None else indices[:: max(1, len(indices) // samples)]


def cross_entropy(
    model: AbstractModel,
    batch: Batch,
    key: PRNGKeyArray | None = None,
    *,
    transport: float = 0.0,
) -> Loss:
    """The loss of every task: `-mean log p(target)`, in nats, the mean over the
    targets that count.

    **Arguments:**

    - `key`: draws the dropout.
    - `transport`: weight of the transport cost in the objective.
    """
    knots = model.equation.knots
    with jax.ensure_compile_time_eval():
        saveat = diffrax.SaveAt(ts=jnp.asarray(knots)) if transport else diffrax.SaveAt(t1=True)
    solution = model.solve(batch.inputs, key=key, saveat=saveat)
    logits = model.read_out(solution.u1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    correct = jnp.argmax(logits, axis=-1) == batch.targets
    right, count, mean = correct, batch.targets.size, jnp.mean(losses)
    if isinstance(batch, Instances):
        counted = batch.targets != UNCOUNTED
        right, count = correct | ~counted, jnp.sum(counted)
        mean = jnp.sum(jnp.where(counted, losses, 0.0)) / jnp.maximum(count, 1)
    # A solve that failed stopped somewhere; there is nothing to learn from that state.
    loss = jnp.where(jnp.all(solution.succeeded), mean, jnp.nan)
    cost = transport * transport_cost(solution.us, knots) if transport else 0.0
    return Loss(
        objective=loss + cost,
        loss=loss,
        correct=jnp.sum(correct),
        count=count,
        exact=jnp.sum(jnp.all(right, axis=tuple(range(1, right.ndim)))),
        field_evaluations=jnp.mean(solution.stats["field_evaluations"]),
    )


def transport_cost(
    us: Float[Array, "depths *batch tokens features"], knots: np.ndarray
) -> Float[Array, ""]:
    """`∫_0^T mean |u_t|² dt`, the mean over all tokens and features, with the velocity of
    each interval taken as constant."""
    squares = jnp.mean(jnp.diff(us, axis=0) ** 2, axis=tuple(range(1, us.ndim)))
    return jnp.sum(squares / np.diff(knots).astype(squares.dtype))
