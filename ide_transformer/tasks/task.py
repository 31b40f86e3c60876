"""What a task offers to the trainer."""

import abc
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ..models import AbstractModel


class Batch(NamedTuple):
    """Inputs of the model and the integers it should predict, `targets: [batch, …]`."""

    inputs: np.ndarray | Array
    targets: np.ndarray | Array


class Loss(NamedTuple):
    """The mean cross-entropy over targets, how many were the most likely, how many there
    are, and the field evaluations of the solve."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    count: int
    field_evaluations: Float[Array, ""] | float


class AbstractTask(abc.ABC):
    """Samples to learn from and samples to test on.

    A batch is a function of the seed and the step alone, so that a resumed run sees the
    data that the interrupted one would have seen.
    """

    # What the held-out part is called: `validation` or `test`.
    held_out_name: ClassVar[str]

    @abc.abstractmethod
    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The training batch of one step."""

    @abc.abstractmethod
    def held_out(self, size: int, samples: int | None = None) -> Iterator[Batch]:
        """The held-out samples in batches of at most `size`: all of them, or about `samples`
        of them evenly spread."""

    @property
    @abc.abstractmethod
    def tokens_per_sample(self) -> int:
        """How many tokens the equation is solved for in each sample."""


def spread(indices: np.ndarray, samples: int | None) -> np.ndarray:
    """About `samples` of some indices, evenly spread; all of them by default."""
    return indices if samples is None else indices[:: max(1, len(indices) // samples)]


def cross_entropy(model: AbstractModel, batch: Batch, key: PRNGKeyArray | None = None) -> Loss:
    """The loss of every task here: `-mean log p(target)`, in nats."""
    solution = model.solve(batch.inputs, key=key)
    logits = model.read_out(solution.u1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    correct = jnp.sum(jnp.argmax(logits, axis=-1) == batch.targets)
    return Loss(
        loss=jnp.mean(losses),
        correct=correct,
        count=batch.targets.size,
        field_evaluations=solution.stats["field_evaluations"],
    )
