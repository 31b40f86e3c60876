"""The choice of samples: passes in a random order, and parts that are evenly spread."""

import functools as ft
from collections.abc import Iterator
from typing import TypeVar

import numpy as np


Indices = TypeVar("Indices", np.ndarray, range)


def in_passes(step: int, size: int, number: int, seed: int) -> np.ndarray:
    """Choose which of `number` samples make the batch of a step: the next `size` of a new
    random order in each pass over all of them."""
    positions = np.arange(step * size, (step + 1) * size)
    passes = positions // number
    chosen = [
        _order(number, int(n), seed)[positions[passes == n] % number] for n in np.unique(passes)
    ]
    return np.concatenate(chosen)


@ft.lru_cache(maxsize=2)
def _order(number: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(number)


def spread(indices: Indices, samples: int | None) -> Indices:
    """About `samples` of the indices, evenly spread; all of them by default."""
    return indices if samples is None else indices[:: max(1, len(indices) // samples)]


def in_parts(indices: Indices, size: int, samples: int | None) -> Iterator[np.ndarray]:
    """About `samples` of the indices, evenly spread, in parts of at most `size`."""
    chosen = spread(indices, samples)
    for first in range(0, len(chosen), size):
        yield np.asarray(chosen[first : first + size])
