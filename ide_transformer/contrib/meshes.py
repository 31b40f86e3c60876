"""Coarser meshes for trained weights, with step sizes fitted to the native outputs."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer.contrib.layers import MOVES, Layered, native_layers
from ide_transformer.dynamics import rates as rates_of, relative_error, stacked_operators
from ide_transformer.equation import TokenDomain, by_samples
from ide_transformer.errors import InputError
from ide_transformer.models import Model, compiled_outputs


# Maps outputs and inputs to the part that the task reads.
Quantity = Callable[[PyTree[Array], PyTree[ArrayLike]], PyTree[Array]]


class Target(eqx.Module):
    """The native outputs of a batch, to compare other models with.

    **Arguments:**

    - `inputs`: the batch; its first axis are the samples.
    - `outputs`: the native outputs for `inputs`.
    - `read`: maps outputs and inputs to the quantity to compare; `None` for the outputs without
      padded tokens.
    """

    inputs: PyTree[ArrayLike]
    outputs: PyTree[Array]
    read: Quantity | None = eqx.field(static=True, default=None)

    @property
    def samples(self) -> int:
        return jax.tree.leaves(self.outputs)[0].shape[0]

    @eqx.filter_jit
    def error(self, model: Model) -> Float[Array, ""]:
        """The relative error of another model. Compiled once for each structure of a model."""
        return self.output_error(model, model(self.inputs))

    def output_error(self, model: Model, outputs: PyTree[Array]) -> Float[Array, ""]:
        """The relative error of outputs."""
        return relative_error(
            *(read_outputs(model, y, self.inputs, self.read) for y in (outputs, self.outputs))
        )

    def part(self, samples: ArrayLike) -> "Target":
        """The target for the samples with these indices."""
        batch = jax.tree.map(jnp.asarray, (self.inputs, self.outputs))
        per_sample, shared = eqx.partition(batch, by_samples(batch))
        selected = jax.tree.map(lambda x: x[jnp.asarray(samples)], per_sample)
        inputs, outputs = eqx.combine(selected, shared)
        return Target(inputs, outputs, self.read)


def native_target(
    model: Model, inputs: PyTree[ArrayLike], read: Quantity | None = None
) -> Target:
    """The `Target` of a model for a batch."""
    return Target(inputs, compiled_outputs(model, inputs), read)


class Coarsening(NamedTuple):
    """A model on a coarser mesh.

    - `evaluations`: field evaluations of a solve.
    - `error`: the error relative to the native model, on the samples that chose the mesh.
    - `steps`: the native layers of each step, `[intervals, operators]`.
    """

    model: Model
    evaluations: float
    error: float
    steps: np.ndarray


def coarsen(model: Model, evaluations: float, inputs: PyTree[ArrayLike], **options) -> Model:
    """Solves trained weights with fewer field evaluations. The intervals that change the
    outputs least are left out, lengthened or merged. The step sizes of the others are fitted to
    the native outputs.

    The control of the result is a `PiecewiseConstant` of `Scaled` operators. If the budget
    allows the model itself, it is returned.

    **Arguments:**

    - `evaluations`: the budget. An evaluation is every operator once, so a model of six layers
      costs 6.
    - `inputs`, `options`: see `coarsenings`.
    """
    least = float(field_evaluations(model, inputs)) / model.layers
    # Also false for an unknown cost, NaN.
    if evaluations >= least:
        for mesh in coarsenings(model, inputs, **options):
            least = mesh.evaluations
            if least <= evaluations:
                return mesh.model
    raise InputError(
        f"coarsen: evaluations={evaluations:g}, but one interval costs {least:g} with "
        f"{type(model.solver).__name__}; allow more, and use a scheme with a known cost."
    )


@eqx.filter_jit
def fit_rates(
    model: Model,
    target: Target,
    *,
    steps: int = 24,
    batch: int = 32,
    learning_rate: float = 0.03,
) -> Model:
    """Fits the step sizes λ_{l,i} of a model in layers to the native model, one for each
    feature, or one for all if an operator has a known flow. Adam minimises the squared error,
    with a rate that falls to zero along a cosine. Batches go through the samples in order;
    `steps * batch / 2` samples determine all step sizes."""
    import optax

    features = eqx.filter_eval_shape(model.embed, target.inputs)[0].shape[-1]
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    size = min(batch, target.samples)
    batches = np.arange(steps * size).reshape(steps, size) % target.samples

    def step(carry, samples):
        rates, state = carry
        part = target.part(samples)
        gradient = jax.grad(lambda x: part.error(eqx.tree_at(rates_of, model, x)) ** 2)(rates)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(rates, updates), state), None

    rates = []
    for operator in stacked_operators(model):
        rate = operator.rate
        if operator.each_feature:
            rate = rate.reshape(rate.shape[0], -1)
            rate = jnp.broadcast_to(rate, (rate.shape[0], features))
        rates.append(rate)
    rates = tuple(rates)
    (rates, _), _ = jax.lax.scan(step, (rates, optimizer.init(rates)), batches)
    return eqx.tree_at(rates_of, model, rates)


def coarsenings(
    model: Model,
    inputs: PyTree[ArrayLike],
    *,
    read: Quantity | None = None,
    moves: tuple[Callable[[Layered], Iterator[Layered]], ...] = MOVES,
    fit: Callable[[Model, Target], Model] | None = fit_rates,
) -> Iterator[Coarsening]:
    """Yields coarser and coarser models: the native model, then one interval less each time.

    A greedy search tries every move, fits the step sizes of the best result, and goes on from
    the fitted or the unfitted model, whichever is better. With `selections` among the moves, no
    result is worse than a choice of whole layers, if there are few enough to try. Three
    quarters of the samples fit step sizes, the last quarter makes the choices. Fewer than four
    samples do both.

    **Arguments:**

    - `inputs`: the calibration batch; its first axis are the samples. Targets are not needed.
    - `read`: the part of the outputs that the task reads, see `Target`.
    - `moves`: map a model in layers to models with one interval less.
    - `fit`: fits the step sizes; `None` leaves them.
    """
    target = native_target(model, inputs, read)
    samples = np.arange(target.samples)
    fitted_on, judged_on = np.split(samples, [len(samples) - len(samples) // 4])
    judge = target.part(judged_on if len(judged_on) else fitted_on)
    fitting = target.part(fitted_on)
    layered = native_layers(model)
    yield Coarsening(model, float(field_evaluations(model, inputs)), 0.0, layered.steps)
    while len(layered.steps) > 1:
        error, layered = _select_best(
            (candidate for move in moves for candidate in move(layered)), judge
        )
        if fit is not None:
            fitted = layered._replace(model=fit(layered.model, fitting))
            error, layered = _select_best((layered, fitted), judge)
        evaluations = float(field_evaluations(layered.model, inputs))
        yield Coarsening(layered.model, evaluations, error, layered.steps)


def _select_best(candidates: Iterable[Layered], judge: Target) -> tuple[float, Layered]:
    """The least error and its model. Keeps no other model in memory."""
    # A march that diverged, with the error NaN, comes last.
    errors = ((float(np.fmin(judge.error(x.model), np.inf)), x) for x in candidates)
    return min(errors, key=lambda pair: pair[0])


@eqx.filter_jit
def field_evaluations(model: Model, inputs: PyTree[ArrayLike]) -> Float[Array, ""]:
    """The field evaluations of a solve, averaged over samples."""
    return jnp.mean(model.solve(inputs).stats["field_evaluations"])


def read_outputs(
    model: Model, outputs: PyTree[Array], inputs: PyTree[ArrayLike], read: Quantity | None
) -> PyTree[Array]:
    """The part of a model's outputs that a target reads; see `Target`."""
    if read is not None:
        return read(outputs, inputs)
    _, domain = model.embed(inputs)
    return jax.tree.map(lambda y: zero_padding(y, domain), outputs)


def zero_padding(y: Float[Array, "..."], domain: TokenDomain) -> Float[Array, "..."]:
    """Outputs `[..., tokens, values]` with zeros at padded tokens; other outputs unchanged."""
    weights = domain.weights
    if weights is None or y.shape[:-1][-weights.ndim :] != weights.shape:
        return y
    counted = jnp.broadcast_to(weights > 0, y.shape[:-1])
    return jnp.where(counted[..., None], y, 0)
