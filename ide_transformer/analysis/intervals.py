"""A scan over the intervals, for what `solve` does not report."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from ..equation import Equation


def scan_intervals(
    equation: Equation,
    visit: Callable[[PyTree, diffrax.MultiTerm, Array, Array], tuple[PyTree, PyTree]],
    carry: PyTree,
    extra: PyTree[Array] = (),
    *,
    dtype: DTypeLike = float,
) -> tuple[PyTree, Any]:
    """A scan over the intervals, `visit(carry, terms, start, extra) -> (carry, out)`.

    **Arguments:**

    - `visit`: is given the terms inside the interval and the depth at which it starts.
    - `extra`: arrays with a leading axis of intervals, handed over slice by slice.
    - `dtype`: of depth; that of the state, which would be promoted otherwise.
    """

    def body(carry, inputs):
        index, weights, extra = inputs
        terms = equation.interval_terms(index, weights)
        start = index * equation.control.interval_length
        return visit(carry, terms, start, extra)

    indices = jnp.arange(equation.control.num_intervals, dtype=dtype)
    return lax.scan(body, carry, (indices, equation.intervals(), extra))
