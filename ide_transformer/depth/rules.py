"""Rules that drop whole layers: each names those to keep. Most are in use without an
equation; `most_needed` is what the equation says."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import ArrayLike, PyTree

from ..models import AbstractModel
from .damage import defects, removal_estimate


Rule = Callable[[AbstractModel, PyTree[ArrayLike], int], Sequence[int]]


def first_layers(model: AbstractModel, inputs: PyTree[ArrayLike], number: int) -> Sequence[int]:
    """Drops the last layers, so that the first `number` are kept."""
    return range(number)


def evenly(model: AbstractModel, inputs: PyTree[ArrayLike], number: int) -> Sequence[int]:
    """Keeps `number` layers evenly spread, the first and the last among them: every other
    one where half are kept. Source: Sajjad et al., arXiv 2004.03844."""
    spread = np.linspace(0, model.control.num_intervals - 1, number)
    return spread.round().astype(int).tolist()


def most_turning(model: AbstractModel, inputs: PyTree[ArrayLike], number: int) -> Sequence[int]:
    """Keeps the layers of greatest block influence, the mean of `1 - cos(u_in, u_out)` over
    tokens. Source: ShortGPT, Men et al., arXiv 2403.03853."""
    influence = np.asarray(defects(model, inputs).turn)
    return sorted(np.argsort(-influence, kind="stable")[:number].tolist())


def most_needed(model: AbstractModel, inputs: PyTree[ArrayLike], number: int) -> Sequence[int]:
    """Keeps the layers of greatest `removal_estimate`."""
    estimate = np.asarray(removal_estimate(model, inputs))
    return sorted(np.argsort(-estimate, kind="stable")[:number].tolist())


def at_random(seed: int) -> Rule:
    """Drops layers at random; fewer are kept of those that were kept before."""

    def rule(model: AbstractModel, inputs: PyTree[ArrayLike], number: int) -> Sequence[int]:
        order = np.random.default_rng(seed).permutation(model.control.num_intervals)
        return sorted(order[:number].tolist())

    return rule
