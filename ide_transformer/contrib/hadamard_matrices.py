"""Hadamard matrices."""

import numpy as np
from jaxtyping import Float

from ide_transformer.errors import InputError


def hadamard(size: int) -> Float[np.ndarray, "size size"]:
    """An orthonormal Hadamard matrix of size `2^k` or `2^k (q + 1)`, q a prime and 3 modulo 4:
    Sylvester's doubling of 1 or of Paley's first construction."""
    order = size // (size & -size)  # the odd part
    while order > 1 and not _is_paley(order):
        order *= 2
        if order > size:
            raise InputError(
                f"hadamard: no matrix of size {size} is known here; take least_squares_map."
            )
    matrix = np.ones((1, 1)) if order == 1 else _paley(order - 1)
    while len(matrix) < size:
        matrix = np.kron([[1, 1], [1, -1]], matrix)
    return matrix / np.sqrt(size)


def _is_paley(order: int) -> bool:
    q = order - 1
    return q > 2 and q % 4 == 3 and all(q % n for n in range(2, int(q**0.5) + 1))


def _paley(q: int) -> np.ndarray:
    squares = {n * n % q for n in range(1, q)}
    character = np.array([0, *(1 if n in squares else -1 for n in range(1, q))])
    matrix = np.ones((q + 1, q + 1))
    matrix[1:, 0] = -1
    matrix[1:, 1:] = character[np.subtract.outer(np.arange(q), np.arange(q)) % q]
    return matrix + np.diag([0.0, *np.ones(q)])
