from collections.abc import Iterable

import jax

from .step import U


def combine(y: U, coefficients: Iterable, increments: list[U]) -> U:
    """`y + Σ_j c_j k_j`; a coefficient that is zero costs nothing."""
    for c, increment in zip(map(float, coefficients), increments, strict=True):
        if c != 0:
            y = jax.tree.map(lambda u, k, c=c: u + c * k, y, increment)
    return y
