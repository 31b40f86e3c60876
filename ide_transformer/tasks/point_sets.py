"""Points at which functions are known to a model: a grid, random ones, and clusters."""

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np

from ..arguments import checked
from ..equation import TokenDomain


# Which points: those of a grid; random ones; or random ones of which most are close together.
PointSet: TypeAlias = Literal["grid", "random", "clustered"]
# Their weights in integrals: the length or the area that is nearest to each, or all the same,
# as in a plain softmax.
WeightRule: TypeAlias = Literal["quadrature", "equal"]


# So many held-out samples have the same random points, whatever the size of a batch.
_BLOCK = 16


def in_blocks(
    samples: np.ndarray, size: int, points: PointSet
) -> Iterator[tuple[int, np.ndarray]]:
    """Held-out samples in batches of at most `size`, and for each batch the number of the first
    sample of its block, all of which have the same points; on a grid there is one block."""
    length = len(samples) if points == "grid" else _BLOCK
    for first in range(0, len(samples), max(length, 1)):
        block = samples[first : first + length]
        for start in range(0, len(block), size):
            yield first, block[start : start + size]


@checked
def points_on_interval(kind: PointSet, number: int, random: np.random.Generator) -> np.ndarray:
    """So many points of [0, 1] in increasing order, `[number]`: the middles of equal parts;
    uniform ones; or half of them with one in each of equal parts, and the others uniform in a
    window of length 1/8 somewhere."""
    if kind == "grid":
        return (np.arange(number) + 0.5) / number
    if kind == "random":
        return np.sort(random.random(number))
    spread = -(-number // 2)
    anywhere = (np.arange(spread) + random.random(spread)) / spread
    window = 7 / 8 * random.random() + random.random(number - spread) / 8
    return np.sort(np.concatenate([anywhere, window]))


@checked
def subset(
    kind: PointSet, number: int, points: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """The indices of so many of the points `[points, dimension]` of the unit cube, none twice:
    uniform ones; or with a preference `1/20 + exp(-|x - c|² / 2σ²)`, c a random place and
    σ = 1/5."""
    preference = np.ones(len(points))
    if kind == "clustered":
        distance = np.linalg.norm(points - random.random(points.shape[1]), axis=1)
        preference = 1 / 20 + np.exp(-((distance / 0.2) ** 2) / 2)
    chosen = random.choice(len(points), number, replace=False, p=preference / preference.sum())
    return np.sort(chosen)


@checked
def domains(
    points: np.ndarray, weights: WeightRule, period: tuple[float | None, ...] | None = None
) -> tuple[TokenDomain, TokenDomain]:
    """Points of the unit cube as the domain of a model, with the chosen weights, and as that of
    a norm of functions, which always has those of quadrature.

    **Arguments:**

    - `period`: of the first; the weights are those of the cube.
    """
    points = points.astype(np.float32)
    whole = TokenDomain.from_points(points, ((0.0, 1.0),) * points.shape[1])
    chosen = whole.weights if weights == "quadrature" else None
    return TokenDomain(whole.points, chosen, period=period), whole
