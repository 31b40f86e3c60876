"""The same weights with fewer field evaluations."""

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, PyTree

from ..errors import InputError
from ..models import AbstractModel
from .error import error_against, evaluations_of
from .fit import fit_rates
from .moves import Mesh, drops, extensions, mergers, native_mesh


class Coarsening(NamedTuple):
    """A model with a coarser mesh.

    - `evaluations`: field evaluations of a solve.
    - `error`: of its outputs on the calibration batch, relative to the native ones.
    - `steps`: `[intervals, operators]`, the native layers of which each step is made.
    """

    model: AbstractModel
    evaluations: float
    error: float
    steps: np.ndarray


def coarsen(
    model: AbstractModel, evaluations: float, inputs: PyTree[ArrayLike], **options
) -> AbstractModel:
    """The same weights solved with at most so many field evaluations: intervals are left
    out, lengthened or merged one after the other, each time those that change the outputs
    least, and the step sizes that remain are fitted to the native outputs.

    What results is a model of the same class, whose control is a `PiecewiseConstant` of
    `Scaled` operators; with the budget of the model itself, it is that model.

    **Arguments:**

    - `evaluations`: the budget; one evaluation is every operator once, so a model of six
      layers costs 6.
    - `inputs`: the calibration batch, as of the model. No targets are needed.
    - `options`: as of `coarsenings`.

    **Raises:** `InputError` for a budget that one interval exceeds.
    """
    least = evaluations_of(model, inputs) / model.control.num_intervals
    # Written so that a cost which is not known, NaN, is refused too.
    if not evaluations >= least:
        raise InputError(
            f"coarsen: evaluations={evaluations:g}, but one interval of this model makes "
            f"{least:g} with {type(model.solver).__name__}; give it at least those of one "
            "interval, and a scheme whose evaluations are known."
        )
    meshes = coarsenings(model, inputs, **options)
    return next(mesh.model for mesh in meshes if mesh.evaluations <= evaluations)


def coarsenings(
    model: AbstractModel,
    inputs: PyTree[ArrayLike],
    *,
    moves: tuple[Callable[[Mesh], Iterator[Mesh]], ...] = (drops, extensions, mergers),
    fit: Callable = fit_rates,
    shortlist: int = 4,
) -> Iterator[Coarsening]:
    """The native model, and then models with one interval less each, down to one interval.

    A greedy search. Every move is tried on the calibration batch; the step sizes of the
    best are fitted; the one with the least error then is where the next search begins.

    **Arguments:**

    - `inputs`: the calibration batch, its first axis the samples.
    - `moves`: from a mesh to those that are one interval coarser.
    - `fit`: fits the step sizes, `fit_rates` or `unit_rates`, which leaves them.
    - `shortlist`: how many candidates are fitted each time.
    """
    exact = model(inputs)
    error_of = error_against(model, inputs)
    mesh = native_mesh(model)
    yield Coarsening(model, evaluations_of(model, inputs), 0.0, mesh.steps)
    while len(mesh.steps) > 1:
        candidates = (candidate for move in moves for candidate in move(mesh))
        fitted = (
            Mesh(fit(candidate.model, inputs, exact), candidate.steps)
            for _, candidate in _best(shortlist, candidates, error_of)
        )
        ((error, mesh),) = _best(1, fitted, error_of)
        yield Coarsening(mesh.model, evaluations_of(mesh.model, inputs), error, mesh.steps)


def _best(number: int, meshes: Iterator[Mesh], error_of: Callable) -> list[tuple[float, Mesh]]:
    """Those of least error, in order. Each mesh has weights of its own, so no more of them
    are kept than asked for."""

    def errors():
        for index, mesh in enumerate(meshes):
            error = float(error_of(mesh.model))
            # The index settles ties; a march that diverged comes last.
            yield np.inf if np.isnan(error) else error, index, mesh

    return [(error, mesh) for error, _, mesh in heapq.nsmallest(number, errors())]
