"""Batches of samples of about one length, so that a model compiles only a few times."""

from collections.abc import Iterator

import numpy as np


# The most batches among which samples are sorted by length.
_WINDOW = 256


def padded_lengths(lengths: np.ndarray) -> np.ndarray:
    """The length to which each sample is padded: the longest in its bucket. Lengths in a bucket
    differ by a factor of at most √2."""
    _, bucket = np.unique(np.ceil(2 * np.log2(lengths) - 1e-9), return_inverse=True)
    longest = np.zeros(bucket.max(initial=0) + 1, lengths.dtype)
    np.maximum.at(longest, bucket, lengths)
    return longest[bucket]


def sorted_batch(
    step: int, size: int, seed: int, lengths: np.ndarray, drawn: np.ndarray, window: int
) -> np.ndarray:
    """The samples of a step. `drawn` are the samples of `window` steps in random order: sorted
    by their padded length they are cut into batches, in random order again."""
    batches = drawn[np.argsort(lengths[drawn], kind="stable")].reshape(window, size)
    order = np.random.default_rng([seed, step // window, 1]).permutation(window)
    return batches[order[step % window]]


def window_of(size: int, number: int) -> int:
    """The number of batches among which `number` samples are sorted, at most one pass."""
    return min(max(number // size, 1), _WINDOW)


def by_length(chosen: np.ndarray, size: int, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Samples in parts of at most `size`, each of one padded length."""
    for length in np.unique(lengths[chosen]):
        bucket = chosen[lengths[chosen] == length]
        for first in range(0, len(bucket), size):
            yield bucket[first : first + size]
