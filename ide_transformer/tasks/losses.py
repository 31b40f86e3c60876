"""The losses of tasks, and the means that an evaluation adds up."""

import abc
import functools as ft
from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ..equation.domain import by_samples
from ..integration import divergence
from ..models import Model
from .finer import Finer


# A target of `InstanceCrossEntropy` that is not counted.
UNCOUNTED = -1


class Batch(NamedTuple):
    """Inputs of the model and what it should predict, `targets: [samples, …]`; functions at
    points of their own are a `Field`."""

    inputs: PyTree[np.ndarray | Array]
    targets: PyTree[np.ndarray | Array]

    def divided(self) -> tuple["Batch", "Batch"]:
        """The arrays that have an axis of samples, and those that all samples share, the points
        of a domain; `eqx.combine` makes one batch of both."""
        return eqx.partition(self, by_samples(self))


class Mean(NamedTuple):
    """A mean as a sum and the number of its terms; those of several batches can be added."""

    total: Float[Array, ""] | Int[Array, ""]
    count: int | Int[Array, ""]

    @property
    def value(self) -> Float[Array, ""]:
        """The mean; of no terms, zero."""
        return self.total / jnp.maximum(self.count, 1)


def averaged(batches: Iterable[dict[str, Mean]]) -> dict[str, float]:
    """The means of several batches as one, the loss first; empty where no term was counted. It
    waits for each batch before it asks for the next, so that few are on their way."""
    sums: dict[str, Mean] = {}
    for new in batches:
        sums = jax.tree.map(jnp.add, sums, new) if sums else new
        jax.block_until_ready(sums)
    if not sums or not int(sums["loss"].count):
        return {}
    names = sorted(sums, key=lambda name: name != "loss")
    return {name: float(sums[name].total) / float(sums[name].count) for name in names}


class Loss(NamedTuple):
    """The loss of a batch.

    - `objective`: what is minimised, the loss with the transport cost and the `terms`.
    - `figures`: the means that an evaluation reports, by name; one of them is `loss`.
    - `field_evaluations`: of all its solves, the mean over samples.
    - `terms`: those of `Finer` by name, without their weights; none by default.
    """

    objective: Float[Array, ""]
    figures: dict[str, Mean]
    field_evaluations: Float[Array, ""]
    terms: dict[str, Float[Array, ""]]

    @property
    def loss(self) -> Float[Array, ""]:
        """The loss alone; NaN where a solve failed."""
        return self.figures["loss"].value


class AbstractLoss(eqx.Module):
    """The loss of a task. A loss of your own defines `measure` and `label`, and `difference`
    for exits by estimate."""

    # Its name and unit, for figures.
    label: ClassVar[str]
    # Whether the outputs are logits of classes.
    classifies: ClassVar[bool] = False

    @property
    def difference(self) -> Callable[[Array, Array], Array] | None:
        """The difference of outputs by which `EstimatedExit` judges, a function of those that
        are expected and those that are given; `None` where there is none."""
        return divergence if self.classifies else None

    @abc.abstractmethod
    def measure(self, outputs: Array, targets: Array) -> dict[str, Mean]:
        """The loss, by the name `loss`, and further figures of a batch.

        **Arguments:**

        - `outputs`: of the model.
        - `targets`: of the batch.
        """

    def gap(self, outputs: Array, finer: Array, targets: Array) -> Float[Array, ""]:
        """The change of the outputs by a finer mesh in depth, `Σ |y - y'|² / Σ |y'|²`.

        **Arguments:**

        - `outputs`, `finer`: y and, from the finer mesh, y'.
        - `targets`: of the batch.
        """
        return jnp.sum((outputs - finer) ** 2) / jnp.sum(finer**2)

    def __call__(
        self,
        model: Model,
        batch: Batch,
        key: PRNGKeyArray | None = None,
        *,
        transport: float = 0.0,
        exit_loss: float = 0.0,
        finer: Finer | None = None,
    ) -> Loss:
        """The loss of a model on a batch.

        **Arguments:**

        - `key`: draws the dropout.
        - `transport`: weight of the transport cost in the objective.
        - `exit_loss`: weight of the mean loss of what is read out after each interval but the
          last, in the objective.
        - `finer`: the comparison with a finer mesh in the objective, if any.
        """
        knots = model.equation.knots
        with jax.ensure_compile_time_eval():
            whole = diffrax.SaveAt(ts=jnp.asarray(knots))
            saveat = whole if transport or exit_loss else diffrax.SaveAt(t1=True)
        solution = model.solve(batch.inputs, key=key, saveat=saveat)
        outputs, targets = model.read_out(solution.u1), jax.tree.map(jnp.asarray, batch.targets)
        figures = self.measure(outputs, targets)
        # A solve that failed stopped somewhere; there is nothing to learn from that state.
        total, count = figures["loss"]
        total = jnp.where(jnp.all(solution.succeeded), total, jnp.nan)
        loss = Mean(total, count)
        cost = transport * transport_cost(solution.us, knots) if transport else 0.0
        if exit_loss and len(knots) > 2:
            read = jax.vmap(lambda u: self.measure(model.read_out(u), targets)["loss"].value)
            cost += exit_loss * jnp.mean(read(solution.us[1:-1]))
        evaluations, terms = jnp.mean(solution.stats["field_evaluations"]), {}
        if finer is not None:
            gap = ft.partial(self.gap, outputs, targets=targets)
            more, terms, added = finer(model, batch.inputs, key, solution.u1, gap)
            cost, evaluations = cost + more, evaluations + added
        return Loss(
            objective=loss.value + cost,
            figures={**figures, "loss": loss},
            field_evaluations=evaluations,
            terms=terms,
        )


class CrossEntropy(AbstractLoss):
    """`-mean log p(target)`, in nats, the mean over all targets; and the accuracy, the part of
    the targets that are the most likely output.

    `outputs: [..., classes]` are logits, `targets: [...]` integers.
    """

    label: ClassVar[str] = "cross-entropy (nats)"
    classifies: ClassVar[bool] = True

    def measure(self, outputs: Array, targets: Array) -> dict[str, Mean]:
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        correct = jnp.argmax(outputs, axis=-1) == targets
        return {
            "loss": Mean(jnp.sum(losses), targets.size),
            "accuracy": Mean(jnp.sum(correct), targets.size),
        }

    def gap(self, outputs: Array, finer: Array, targets: Array) -> Float[Array, ""]:
        """The mean over targets of the divergence `Σ p' log(p'/p)` of the probabilities, in
        nats."""
        return jnp.mean(divergence(finer, outputs))


class InstanceCrossEntropy(AbstractLoss):
    """The cross-entropy of instances of a problem, `targets: [instances, ...]`, that have
    several targets each. A target of -1 is not counted. Beside the accuracy it gives the exact
    match, the part of the instances of which all targets are right; see `CrossEntropy`.
    """

    label: ClassVar[str] = CrossEntropy.label
    classifies: ClassVar[bool] = True

    def measure(self, outputs: Array, targets: Array) -> dict[str, Mean]:
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        correct = jnp.argmax(outputs, axis=-1) == targets
        counted = targets != UNCOUNTED
        count = jnp.sum(counted)
        exact = jnp.all(correct | ~counted, axis=tuple(range(1, targets.ndim)))
        return {
            "loss": Mean(jnp.sum(jnp.where(counted, losses, 0.0)), count),
            "accuracy": Mean(jnp.sum(correct), count),
            "exact_match": Mean(jnp.sum(exact), len(targets)),
        }

    def gap(self, outputs: Array, finer: Array, targets: Array) -> Float[Array, ""]:
        """Gap of `CrossEntropy`, the mean over the targets that are counted."""
        counted = targets != UNCOUNTED
        total = jnp.sum(jnp.where(counted, divergence(finer, outputs), 0.0))
        return Mean(total, jnp.sum(counted)).value


def transport_cost(
    us: Float[Array, "depths *batch tokens features"], knots: np.ndarray
) -> Float[Array, ""]:
    """`∫_0^T mean |u_t|² dt`, the mean over all tokens and features, with the velocity of
    each interval taken as constant."""
    squares = jnp.mean(jnp.diff(us, axis=0) ** 2, axis=tuple(range(1, us.ndim)))
    return jnp.sum(squares / np.diff(knots).astype(squares.dtype))
