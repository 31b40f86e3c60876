"""What a task offers to the trainer."""

import abc
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import diffrax
import jax
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
    """What is minimised, and what of it is the mean cross-entropy over targets; how many
    targets were the most likely, how many there are, and the field evaluations of a solve."""

    objective: Float[Array, ""]
    loss: Float[Array, ""]
    correct: Float[Array, ""]
    count: int
    field_evaluations: Float[Array, ""]


class AbstractTask(abc.ABC):
    """Samples to learn from and samples to test on.

    A batch is a function of the seed and the step alone, so that a resumed run sees the
    data that the interrupted one would have seen.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True
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


def cross_entropy(
    model: AbstractModel,
    batch: Batch,
    key: PRNGKeyArray | None = None,
    *,
    transport: float = 0.0,
) -> Loss:
    """The loss of every task here: `-mean log p(target)`, in nats.

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
    # A solve that failed has stopped somewhere; nothing is to be learned from there.
    loss = jnp.where(jnp.all(solution.succeeded), jnp.mean(losses), jnp.nan)
    cost = transport * transport_cost(solution.us, knots) if transport else 0.0
    return Loss(
        objective=loss + cost,
        loss=loss,
        correct=jnp.sum(jnp.argmax(logits, axis=-1) == batch.targets),
        count=batch.targets.size,
        field_evaluations=jnp.mean(solution.stats["field_evaluations"]),
    )


def transport_cost(
    us: Float[Array, "depths *batch tokens features"], knots: np.ndarray
) -> Float[Array, ""]:
    """`∫_0^T mean |u_t|² dt`, the mean over all tokens and features, with the velocity of
    each interval taken as constant."""
    squares = jnp.mean(jnp.diff(us, axis=0) ** 2, axis=tuple(range(1, us.ndim)))
    return jnp.sum(squares / np.diff(knots).astype(squares.dtype))
