"""Makes batches of samples of similar length, so that a model compiles only a few times."""

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
    """The samples of a step. Sorts `drawn`, the samples of `window` steps, by padded length,
    and cuts them into batches, in random order."""
    batches = drawn[np.argsort(lengths[drawn], kind="stable")].reshape(window, size)
    order = np.random.default_rng([seed, step // window, 1]).permutation(window)
    return batches[order[step % window]]


def window_of(size: int, num_samples: int) -> int:
    """How many batches of `size` samples are sorted at once: at most one pass."""
    return min(max(num_samples // size, 1), _WINDOW)


def by_length(samples: np.ndarray, size: int, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Batches of at most `size` samples, each of one padded length."""
    for length in np.unique(lengths[samples]):
        bucket = samples[lengths[samples] == length]
        for first in range(0, len(bucket), size):
            yield bucket[first : first + size]
