"""Rows of a tensor that several weights share, or that are stored in another order."""

import numpy as np


def part_rows(index: int, outputs: int) -> np.ndarray:
    """The rows of one of several equal parts that follow one another."""
    return index * outputs + np.arange(outputs)


def head_part_rows(index: int, parts: int, heads: int, head_features: int) -> np.ndarray:
    """The rows of one of `parts` parts that follow one another inside each head."""
    rows = np.arange(heads * parts * head_features)
    return rows.reshape(heads, parts, head_features)[:, index].reshape(-1)


def neighbours_to_halves(heads: int, head_features: int, turning: int) -> np.ndarray:
    """The order of the rows of queries or keys that puts rotary pairs half a width apart, as
    in `Rotary`, where the tensor has them as neighbours.

    **Arguments:**

    - `turning`: how many features of a head have rotary positions.
    """
    first = [*range(0, turning, 2), *range(1, turning, 2), *range(turning, head_features)]
    starts = head_features * np.arange(heads)[:, None]
    return (starts + np.array(first)).reshape(-1)
