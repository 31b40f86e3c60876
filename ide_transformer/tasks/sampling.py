"""The choice of samples: passes in a random order, and parts that are evenly spread."""

import functools as ft
from collections.abc import Iterator
from typing import Annotated, TypeVar

import numpy as np
from jaxtyping import Int
from pydantic import Field

from ..arguments import NonNegativeInt, checked
from ..errors import InputError


Indices = TypeVar("Indices", np.ndarray, range)

# Four rounds of a Feistel network are a pseudorandom permutation (Luby and Rackoff, 1988); on
# the few bits of a small number more rounds are needed to look so.
_ROUNDS = 8


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


@checked
def shuffled(
    places: Int[np.ndarray, "..."],
    number: Annotated[int, Field(gt=0, le=2**62)],
    seed: NonNegativeInt,
    epoch: NonNegativeInt,
) -> Int[np.ndarray, "..."]:
    """The samples at some `places`, each below `number`, of a random order of `0 … number - 1`,
    another one for each seed and epoch. Each is computed by itself, so that no order is stored:

        (l, r) -> (r, l xor f_i(r)),   i = 1 … 8,

    l and r the halves of the bits of a place and f_i a hash with a key. Each round can be
    undone, so all of them map the numbers of 2b bits one to one. A result that is `number` or
    more is mapped again until it is less, which leaves a one-to-one map of the others.

    **Raises:** `InputError` for other places, and for a number above 2^62.

    Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
    """
    if places.size and not 0 <= places.min() <= places.max() < number:
        raise InputError(
            f"shuffled: places from {places.min()} to {places.max()} of {number} samples; give "
            f"them from 0 to {number - 1}."
        )
    half = max(1, (int(number - 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64)
    found = places.astype(np.uint64).ravel()
    wrong = np.arange(found.size)
    while wrong.size:
        found[wrong] = _encrypted(found[wrong], keys, np.uint64(half))
        wrong = wrong[found[wrong] >= number]
    return found.astype(np.int64).reshape(places.shape)


def _encrypted(x: np.ndarray, keys: np.ndarray, half: np.uint64) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for key in keys:
        left, right = right, left ^ (_hashed(right + key) & mask)
    return (left << half) | right


def _hashed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
