import jax
from jaxtyping import Array, PyTree


def combine(y: PyTree[Array], coefficients: tuple, increments: list) -> PyTree[Array]:
    """`y + Σ_j c_j k_j`; coefficients that are the number 0 cost nothing."""
    for coefficient, increment in zip(coefficients, increments, strict=True):
        if not (isinstance(coefficient, int | float) and coefficient == 0):
            y = jax.tree.map(lambda u, k, c=coefficient: u + c * k, y, increment)
    return y
