"""Rules that drop whole layers: each names those to keep. Most are in use elsewhere;
`most_needed` comes from the equation."""

from collections.abc import Callable, Sequence

import numpy as np

from .ranking import Columns


Rule = Callable[[Columns, int], Sequence[int]]


def first_layers(columns: Columns, number: int) -> Sequence[int]:
    """Drops the last layers, so that the first `number` are kept."""
    return range(number)


def evenly(columns: Columns, number: int) -> Sequence[int]:
    """Keeps `number` layers evenly spread, the first and the last among them: every other
    one where half are kept. Reference: Sajjad et al., arXiv 2004.03844."""
    spread = np.linspace(0, len(columns["estimate"]) - 1, number)
    return spread.round().astype(int).tolist()


def most_turning(columns: Columns, number: int) -> Sequence[int]:
    """Keeps the layers of greatest block influence, the mean of `1 - cos(u_in, u_out)` over
    tokens. Reference: ShortGPT, Men et al., arXiv 2403.03853."""
    return _greatest(columns["turn"], number)


def most_needed(columns: Columns, number: int) -> Sequence[int]:
    """Keeps the layers of greatest `removal_estimate`."""
    return _greatest(columns["estimate"], number)


def at_random(seed: int) -> Rule:
    """Drops layers at random; a smaller number keeps some of those that a larger one keeps."""

    def rule(columns: Columns, number: int) -> Sequence[int]:
        order = np.random.default_rng(seed).permutation(len(columns["estimate"]))
        return sorted(order[:number].tolist())

    return rule


def _greatest(column: np.ndarray, number: int) -> Sequence[int]:
    return sorted(np.argsort(-column, kind="stable")[:number].tolist())
