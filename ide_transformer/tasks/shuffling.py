"""A random order of any number of samples that needs no memory."""

import numpy as np
from jaxtyping import Int

from ..arguments import NonNegativeInt, PositiveInt, checked
from ..errors import InputError


# Four rounds of a Feistel network are a pseudorandom permutation (Luby and Rackoff, 1988); on
# the few bits of a small number more rounds are needed to look so.
_ROUNDS = 8


@checked
def shuffled(
    places: Int[np.ndarray, "..."],
    number: PositiveInt,
    seed: NonNegativeInt,
    epoch: NonNegativeInt,
) -> Int[np.ndarray, "..."]:
    """The samples at some places of a random order of `0 … number - 1`, another one for each
    seed and epoch. Each is computed by itself, so that no order is ever stored:

        (l, r) -> (r, l xor f_i(r)),   i = 1 … 8,

    l and r the halves of the bits of a place and f_i a hash with a key. Each round can be
    undone, so all of them map the numbers of 2b bits one to one. A result that is `number` or
    more is mapped again until it is less, which leaves a one-to-one map of the others.

    **Arguments:**

    - `places`: below `number`.
    - `number`: how many samples there are, at most 2^62.

    **Raises:** `InputError` for places or a number that are not.

    Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
    """
    if number > 2**62:
        raise InputError(f"shuffled: number={number}; give at most 2**62.")
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
