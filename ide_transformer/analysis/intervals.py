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
    """Scan over the intervals with `visit(carry, terms, start, extra) -> (carry, out)`, for
    quantities that `solve` does not report.

    **Arguments:**

    - `visit`: sees the terms inside the interval and the depth at which it starts.
    - `extra`: arrays with a leading axis of intervals; `visit` sees one slice of each.
    - `dtype`: of depth; take that of the state, which would be promoted otherwise.
    """

    def body(carry, inputs):
        index, weights, extra = inputs
        terms = equation.interval_terms(index, weights)
        start = index * equation.control.interval_length
        return visit(carry, terms, start, extra)

    indices = jnp.arange(equation.control.num_intervals, dtype=dtype)
    return lax.scan(body, carry, (indices, equation.intervals(), extra))
