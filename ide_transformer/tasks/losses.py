"""Losses, batches, and means over batches."""

import abc
import dataclasses
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ..dynamics import AbstractCost, Path
from ..equation import affine
from ..equation.domain import by_samples
from ..errors import InputError
from ..integration import divergence, relative_difference
from ..models import Field, Model, Statistics, fed_back


# A target that does not count in a cross-entropy.
UNCOUNTED = -1
# Running costs, by name.
Costs: TypeAlias = Mapping[str, AbstractCost]


class Batch(NamedTuple):
    """Inputs of a model, and targets `[samples, …]`. Functions at points are a `Field`."""

    inputs: PyTree[np.ndarray | Array]
    targets: PyTree[np.ndarray | Array]

    def divided(self) -> tuple["Batch", "Batch"]:
        """Splits arrays with an axis of samples from arrays that all samples share, such as
        points. `eqx.combine` joins them."""
        return eqx.partition(self, by_samples(self))


class Mean(NamedTuple):
    """A mean as a sum and the number of its terms, which add up over batches."""

    total: Float[Array, ""] | Int[Array, ""]
    count: int | Int[Array, ""]

    @property
    def value(self) -> Float[Array, ""]:
        """The mean; 0 without terms."""
        return self.total / jnp.maximum(self.count, 1)


def averaged(batches: Iterable[dict[str, Mean]]) -> dict[str, float]:
    """The means over several batches, the loss first; empty if no term counts."""
    sums: dict[str, Mean] = {}
    for new in batches:
        sums = jax.tree.map(operator.add, sums, new) if sums else new
        jax.block_until_ready(sums)  # so that few batches are in flight
    if not sums or not int(sums["loss"].count):
        return {}
    means = {}
    for name in sorted(sums, key=lambda name: name != "loss"):
        count = float(sums[name].count)
        means[name] = float(sums[name].total) / count if count else math.inf
    return means


class Loss(NamedTuple):
    """The loss of a batch.

    - `objective`: the loss plus weighted running costs, which training minimises.
    - `figures`: the means that an evaluation reports, by name; one is `loss`.
    - `field_evaluations`: the mean evaluations of a solve over samples.
    - `terms`: running costs `costs.NAME`, without their weights.
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
    """The loss of a task. A loss of your own defines `measure`, `label`, and `difference` for
    exits by estimate."""

    # The name and unit of the loss, for plots.
    label: ClassVar[str]
    # Whether the outputs are logits of classes.
    classifies: ClassVar[bool] = False

    @property
    def difference(self) -> Callable[[Array, Array], Array] | None:
        """The difference by which `EstimatedExit` compares outputs."""
        return divergence if self.classifies else None

    @abc.abstractmethod
    def measure(self, outputs: Array, targets: Array) -> dict[str, Mean]:
        """The figures of a batch by name, with the loss as `loss`."""

    def in_units_of(self, model: Model) -> "AbstractLoss":
        """The loss with the statistics of a model; by default unchanged."""
        return self

    def figures(self, means: dict[str, float]) -> dict[str, float]:
        """The figures to report, from the means over all samples; by default these means."""
        return means

    def __call__(
        self, model: Model, batch: Batch, key: PRNGKeyArray | None = None, **options
    ) -> Loss:
        """The loss of a model on a batch, with the options of `with_outputs`."""
        return self.with_outputs(model, batch, key, **options)[0]

    def with_outputs(
        self,
        model: Model,
        batch: Batch,
        key: PRNGKeyArray | None = None,
        *,
        costs: Costs = MappingProxyType({}),
    ) -> tuple[Loss, Array]:
        """The loss, and the outputs of the model.

        **Arguments:**

        - `key`: for dropout.
        - `costs`: running costs, by name.
        """
        saveat = diffrax.SaveAt(t1=True)
        if costs:
            with jax.ensure_compile_time_eval():
                saveat = diffrax.SaveAt(ts=jnp.asarray(model.equation.knots))
        solution = model.solve(batch.inputs, key=key, saveat=saveat)
        outputs = model.outputs(solution.u1, batch.inputs)
        targets = jax.tree.map(jnp.asarray, batch.targets)
        figures = self.in_units_of(model).measure(outputs, targets)
        # A failed solve has no loss to learn from.
        loss = figures["loss"]
        loss = loss._replace(total=jnp.where(jnp.all(solution.succeeded), loss.total, jnp.nan))
        path = Path(model, batch.inputs, solution.us)
        terms = {f"costs.{name}": cost(path) for name, cost in costs.items()}
        weighted = [x.weight * terms[f"costs.{name}"] for name, x in costs.items() if x.weight]
        evaluations = jnp.mean(solution.stats["field_evaluations"])
        figures = {**figures, "loss": loss}
        return Loss(sum(weighted, loss.value), figures, evaluations, terms), outputs


class CrossEntropy(AbstractLoss):
    """`-mean log p(target)` in nats, and the accuracy: the share of targets that the model
    finds most likely. Targets of -1 do not count.

    `outputs: [..., classes]` are logits, `targets: [...]` integers.
    """

    label = "cross-entropy (nats)"
    classifies = True

    def measure(self, outputs: Array, targets: Array) -> dict[str, Mean]:
        import optax  # slow to import

        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        correct = jnp.argmax(outputs, axis=-1) == targets
        return {
            "loss": _counted_mean(losses, targets),
            "accuracy": _counted_mean(correct, targets),
        }


class InstanceCrossEntropy(CrossEntropy):
    """`CrossEntropy` for samples with several targets each, `targets: [samples, ...]`, and the
    exact match: the share of samples whose targets are all right. Samples without a target do
    not count."""

    def measure(self, outputs: Array, targets: Array) -> dict[str, Mean]:
        is_right = (jnp.argmax(outputs, axis=-1) == targets) | (targets == UNCOUNTED)
        axes = tuple(range(1, targets.ndim))
        counted = jnp.any(targets != UNCOUNTED, axes)
        exact = jnp.all(is_right, axes) & counted
        exact_match = Mean(jnp.sum(exact), jnp.sum(counted))
        return {**super().measure(outputs, targets), "exact_match": exact_match}


def _counted_mean(values: Array, targets: Array) -> Mean:
    counted = targets != UNCOUNTED
    return Mean(jnp.sum(jnp.where(counted, values, 0)), jnp.sum(counted))


class RelativeError(AbstractLoss):
    """The relative error of functions, `‖output - target‖₂ / ‖target‖₂`: norms over all points
    and channels of a sample, the mean over samples.

    `outputs` and `targets: [samples, tokens, ...]` have one shape; targets may have the axes of
    a grid instead of `tokens`. For a `Field` the norm uses the weights of its domain,
    `‖v‖² ≈ Σ_j w_j |v(x_j)|²`.

    If the model has statistics of several channels, each channel is divided by its standard
    deviation, so that its unit does not matter.

    **Raises:** `InputError` if the shapes differ.
    """

    label = "relative error"
    # Divides each channel; `None` for 1.
    scales: tuple[float, ...] | None = eqx.field(static=True, default=None)

    def in_units_of(self, model: Model) -> "RelativeError":
        statistics: Statistics = getattr(model.read_out, "statistics", None) or ()
        if len(statistics) < 2:
            return self
        return dataclasses.replace(self, scales=tuple(scale for _, scale in statistics))

    @property
    def difference(self) -> Callable[[Array, Array], Array]:
        return relative_difference

    def measure(self, outputs: Array, targets: Array | Field) -> dict[str, Mean]:
        import optax

        values = targets.values if isinstance(targets, Field) else targets
        if outputs.ndim < values.ndim and outputs.size == values.size:
            values = values.reshape(outputs.shape)
        if outputs.shape != values.shape:
            raise InputError(
                f"the model returns outputs of shape {outputs.shape}, and the targets have "
                f"{values.shape}; a relative error needs an output for each target."
            )
        factors = jnp.ones(())
        if isinstance(targets, Field) and targets.domain.weights is not None:
            shares = targets.domain.shares
            # The derivative of the root is infinite at weight 0, such as padding.
            roots = jnp.where(shares == 0, 0, jnp.sqrt(jnp.where(shares == 0, 1, shares)))
            factors = roots.astype(outputs.dtype)
            factors = factors.reshape(*factors.shape, *(1,) * (outputs.ndim - 2))

        def norms(x):
            weighted = (x * jnp.broadcast_to(factors, x.shape)).reshape(len(x), -1)
            return optax.safe_norm(weighted, 0.0, axis=1)

        if self.scales is not None:
            gain = 1 / jnp.asarray(self.scales, outputs.dtype)
            outputs, values = (affine(jnp.asarray(x), gain) for x in (outputs, values))
        errors = norms(outputs - values) / norms(values)
        return {"loss": Mean(jnp.sum(errors), len(values))}


class MeanSquaredError(AbstractLoss):
    """The mean squared error of numbers in standard deviations,

        mean_j ((output_j - target_j) / std_j)²,

    with the `statistics` of the model, so that predicting the mean of the training samples
    scores 1. An evaluation also reports for each number j, in its unit,

        rmse_j = sqrt(mean (output_j - target_j)²),   mae_j = mean |output_j - target_j|,
        r2_j = 1 - mean (output_j - target_j)² / mean (target_j - mean target_j)².

    `outputs` and `targets`: `[samples]`, or `[samples, numbers]`.

    **Raises:** `InputError` if the shapes differ.
    """

    label = "mean squared error (standard deviations)"
    statistics: Statistics | None = eqx.field(static=True, default=None)

    def in_units_of(self, model: Model) -> "MeanSquaredError":
        statistics = getattr(model.read_out, "statistics", None)
        return dataclasses.replace(self, statistics=statistics)

    def measure(self, outputs: Array, targets: Array) -> dict[str, Mean]:
        if outputs.shape != targets.shape or outputs.ndim not in (1, 2):
            raise InputError(
                f"the model returns outputs of shape {outputs.shape}, and the targets have "
                f"{targets.shape}; both must be [samples] or [samples, numbers]."
            )
        outputs, targets = (x.reshape(len(x), -1) for x in (outputs, targets))
        numbers = outputs.shape[1]
        means, scales = np.array(self.statistics or ((0.0, 1.0),) * numbers).T
        error = outputs - targets
        # Around the mean, because the variance would lose digits around 0.
        centred = targets - jnp.broadcast_to(jnp.asarray(means, targets.dtype), targets.shape)
        scaled = affine(error, 1 / jnp.asarray(scales, error.dtype))
        sums = {"loss": jnp.sum(jnp.mean(scaled**2, axis=1))}
        for j in range(numbers):
            sums[f"square_{j}"] = jnp.sum(error[:, j] ** 2)
            sums[f"absolute_{j}"] = jnp.sum(jnp.abs(error[:, j]))
            sums[f"target_{j}"] = jnp.sum(centred[:, j])
            sums[f"target_square_{j}"] = jnp.sum(centred[:, j] ** 2)
        return {name: Mean(total, len(outputs)) for name, total in sums.items()}

    def figures(self, means: dict[str, float]) -> dict[str, float]:
        numbers = sum(name.startswith("absolute_") for name in means)
        remaining = dict(means)
        figures = {"loss": remaining.pop("loss")}
        for j in range(numbers):
            square = remaining.pop(f"square_{j}")
            absolute = remaining.pop(f"absolute_{j}")
            variance = remaining.pop(f"target_square_{j}") - remaining.pop(f"target_{j}") ** 2
            end = f"_{j + 1}" if numbers > 1 else ""
            figures[f"rmse{end}"] = math.sqrt(square)
            figures[f"mae{end}"] = absolute
            figures[f"r2{end}"] = 1 - square / variance if variance > 0 else math.nan
        return {**figures, **remaining}


class RolloutError(RelativeError):
    """The relative error of a roll-out, in which outputs become inputs: the mean over its
    steps. `targets` lists the functions after each step. Gradients go through all steps."""

    label = "relative error of a roll-out"
    # Whether the gradient of a step goes through the steps before it.
    through_all: ClassVar[bool] = True

    def measure(
        self, outputs: Array, targets: Array | Field | list[Array | Field]
    ) -> dict[str, Mean]:
        """The error of the first step."""
        first = targets[0] if isinstance(targets, list) else targets
        return super().measure(outputs, first)

    def __call__(
        self, model: Model, batch: Batch, key: PRNGKeyArray | None = None, **options
    ) -> Loss:
        inputs = batch.inputs
        losses = []
        for step, target in enumerate(batch.targets):
            step_key = None if key is None else jax.random.fold_in(key, step)
            loss, u = self.with_outputs(model, Batch(inputs, target), step_key, **options)
            u = u if self.through_all else jax.lax.stop_gradient(u)
            inputs = fed_back(inputs, u)
            losses.append(loss)
        mean = jax.tree.map(lambda *x: sum(x) / len(x), *losses)
        return mean._replace(field_evaluations=len(losses) * mean.field_evaluations)


class PushforwardError(RolloutError):
    """`RolloutError` without the gradient through earlier steps: each step learns to correct
    earlier errors as if they were noise in its inputs. Reference: Brandstetter et al., ICLR
    2022, arXiv 2202.03376."""

    label = "relative error of a roll-out without its gradient"
    through_all = False
