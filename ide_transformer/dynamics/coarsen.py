from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..errors import InputError
from ..models import AbstractModel
from .fit import fit_rates
from .moves import Layered, drops, extensions, mergers, native_layers, selections
from .target import Quantity, Target, native_target


MOVES = (selections, drops, extensions, mergers)


class Coarsening(NamedTuple):
    """A model on a coarser layered.

    - `evaluations`: field evaluations of a solve.
    - `error`: relative to the native model, on the samples by which it was chosen.
    - `steps`: `[intervals, operators]`, the native layers of which each step is made.
    """

    model: AbstractModel
    evaluations: float
    error: float
    steps: np.ndarray


def coarsen(
    model: AbstractModel, evaluations: float, inputs: PyTree[ArrayLike], **options
) -> AbstractModel:
    """Solve the same weights with at most so many field evaluations. Intervals are left out,
    lengthened or merged: those that change the outputs, or what is read of them, least. The
    remaining step sizes are fitted to the native outputs.

    The result is a model of the same class, whose control is a `PiecewiseConstant` of
    `Scaled` operators; with the budget of the model itself, it is that model.

    **Arguments:**

    - `evaluations`: the budget; one evaluation is every operator once, so a model of six
      layers costs 6.
    - `inputs`: the calibration batch, see the model. No targets are needed.
    - `options`: see `coarsenings`; above all `read`, what the task reads of the outputs.

    **Raises:** `InputError` for a budget that one interval exceeds.
    """
    least = float(field_evaluations(model, inputs)) / model.control.num_intervals
    # In this form it refuses a cost that is not known, NaN, as well.
    if evaluations >= least:
        for mesh in coarsenings(model, inputs, **options):
            least = mesh.evaluations
            if least <= evaluations:
                return mesh.model
    raise InputError(
        f"coarsen: evaluations={evaluations:g}, but one interval of this model makes "
        f"{least:g} with {type(model.solver).__name__}; give it at least those of one "
        "interval, and a scheme whose evaluations are known."
    )


def coarsenings(
    model: AbstractModel,
    inputs: PyTree[ArrayLike],
    *,
    read: Quantity | None = None,
    moves: tuple[Callable[[Layered], Iterator[Layered]], ...] = MOVES,
    fit: Callable[[AbstractModel, Target], AbstractModel] | None = fit_rates,
) -> Iterator[Coarsening]:
    """The native model, and then models with one interval less each, down to one interval.

    A greedy search. Every move is tried on the calibration batch, and the step sizes of the
    best are fitted. The next search begins from the better of the two, fitted or not.
    With `selections` among the moves none is worse by that error than any choice of whole
    layers, where these are few enough to be tried.

    Step sizes are fitted to three quarters of the samples. All choices are made by the error on
    the last quarter. Fewer than four samples serve for both.

    **Arguments:**

    - `inputs`: the calibration batch, its first axis the samples.
    - `read`: see `Target`.
    - `moves`: from a model in layers to those that are one interval coarser.
    - `fit`: fits the step sizes; `None` leaves them.
    """
    target = native_target(model, inputs, read)
    number = target.samples
    fitted_on, judged_on = np.split(np.arange(number), [number - number // 4])
    judge = target.part(judged_on if len(judged_on) else fitted_on)
    fitting = target.part(fitted_on)
    layered = native_layers(model)
    yield Coarsening(model, float(field_evaluations(model, inputs)), 0.0, layered.steps)
    while len(layered.steps) > 1:
        error, layered = _best(
            (candidate for move in moves for candidate in move(layered)), judge
        )
        if fit is not None:
            fitted = layered._replace(model=fit(layered.model, fitting))
            error, layered = _best((layered, fitted), judge)
        evaluations = float(field_evaluations(layered.model, inputs))
        yield Coarsening(layered.model, evaluations, error, layered.steps)


@eqx.filter_jit
def field_evaluations(model: AbstractModel, inputs: PyTree[ArrayLike]) -> Float[Array, ""]:
    """Field evaluations of one solve, the mean over samples that have steps of their own.
    Those of fixed steps are known without a solve, which the compiler then leaves out."""
    return jnp.mean(model.solve(inputs).stats["field_evaluations"])


def _best(meshes: Iterable[Layered], judge: Target) -> tuple[float, Layered]:
    """The least error and its model. Each has weights of its own, so no other is kept."""

    def errors():
        for found in meshes:
            error = float(judge.error(found.model))
            # A march that diverged comes last.
            yield np.inf if np.isnan(error) else error, found

    return min(errors(), key=lambda found: found[0])
