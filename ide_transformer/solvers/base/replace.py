from collections.abc import Callable

import diffrax
import jax
from jaxtyping import PyTree


def replace_schemes(
    solver: PyTree, kind: type, replacement: Callable[..., diffrax.AbstractSolver]
) -> PyTree:
    """`solver` with `replacement(x)` for every scheme x of class `kind` inside it, itself
    included."""

    def matches(x):
        # By class: diffrax's isinstance looks through wrappers.
        return issubclass(type(x), kind)

    return jax.tree.map(lambda x: replacement(x) if matches(x) else x, solver, is_leaf=matches)
