import jax
from jaxtyping import Array, PyTree


def combine(y: PyTree[Array], coefficients: tuple, increments: list) -> PyTree[Array]:
    """`y + Σ_j c_j k_j`, the coefficients plain numbers; a zero costs nothing."""
    for coefficient, increment in zip(coefficients, increments, strict=True):
        if coefficient != 0:
            y = jax.tree.map(lambda u, k, c=coefficient: u + c * k, y, increment)
    return y
