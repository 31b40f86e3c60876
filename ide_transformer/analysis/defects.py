"""The defects of each layer: how far its step is from the solution of the equation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from ..equation import Depth, Equation
from ..integration import TokenNorm
from ..solvers import LieStrang, LieTrotter, StepField, keeps_constraint, single_step


class Defects(NamedTuple):
    """One number for each interval, `[intervals]`. With u the state at its beginning, Φ_h the
    native step, `δ = Φ_h u - u` and |·| the root mean square over features and over tokens
    that are not padding:

    - `state`: |u|.
    - `increment`: |δ| / |u|.
    - `turn`: `1 - cos(u, Φ_h u)`, the mean over tokens; the block influence of ShortGPT (Men
      et al., arXiv 2403.03853).
    - `alignment`: cosine between δ and that of the interval before; NaN for the first.
    - `step_doubling`: `|Φ_{h/2} Φ_{h/2} u - Φ_h u| / |u|`, the local error, `O(h^{p+1})` for a
      scheme of order p.
    - `splitting`: `|S u - T u| / |u|`, S and T the steps of Strang and Lie–Trotter.
    - `commutator`: `|T u - T' u| / (h² |u|)`, T' Lie–Trotter in the opposite order; for linear
      operators and Euler sub-steps it is `|[A_2, A_1] u| / |u|`.

    The last two are NaN for schemes that do not split.
    """

    state: Float[Array, " intervals"]
    increment: Float[Array, " intervals"]
    turn: Float[Array, " intervals"]
    alignment: Float[Array, " intervals"]
    step_doubling: Float[Array, " intervals"]
    splitting: Float[Array, " intervals"]
    commutator: Float[Array, " intervals"]


@eqx.filter_jit
def equation_defects(
    equation: Equation,
    u0: Float[Array, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
) -> Defects:
    """The defects along the march of `solver` with one step in each interval.

    Reference for step doubling and embedded pairs: Hairer, Nørsett, Wanner, Solving Ordinary
    Differential Equations I, section II.4.
    """
    solver = keeps_constraint(solver, equation.constraint)
    weights = equation.domain.weights
    counted = jnp.ones(u0.shape[-2]) if weights is None else weights > 0
    norm = TokenNorm(counted.astype(u0.dtype))
    tokens = jnp.broadcast_to(counted, u0.shape[:-1]).astype(u0.dtype)
    length = equation.control.interval_length

    def flat(x):
        """All of a state as one vector, without padding."""
        return (x * tokens[..., None]).ravel()

    def visit(carry, terms, start, _):
        u, previous = carry
        end = start + length
        stepped = single_step(solver, terms, start, end, u)
        half = single_step(solver, terms, start, start + length / 2, u)
        halves = single_step(solver, terms, start + length / 2, end, half)
        increment = stepped - u
        size = norm(u)
        defects = Defects(
            state=size,
            increment=norm(increment) / size,
            turn=1 - jnp.average(_cosine(u, stepped), weights=tokens),
            alignment=_cosine(flat(increment), flat(previous)),
            step_doubling=norm(halves - stepped) / size,
            **_splitting_defects(solver, terms, start, length, u, norm),
        )
        return (stepped, increment), defects

    carry = (u0, jnp.full_like(u0, jnp.nan))
    _, defects = scan_intervals(equation, visit, carry, dtype=u0.dtype)
    return defects


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


def _splitting_defects(
    solver: diffrax.AbstractSolver,
    terms: diffrax.MultiTerm,
    start: Depth,
    length: float,
    u: Array,
    norm: TokenNorm,
) -> dict[str, Array]:
    """`splitting` and `commutator` of `Defects`."""
    sub_solver = getattr(solver, "sub_solver", None)
    if sub_solver is None:
        return dict.fromkeys(("splitting", "commutator"), jnp.full((), jnp.nan, u.dtype))
    end = start + length
    error = StepField(terms, start, end).first_step(LieStrang(sub_solver), u).error
    opposite = diffrax.MultiTerm(*reversed(terms.terms))
    here, there = (
        single_step(LieTrotter(sub_solver), x, start, end, u) for x in (terms, opposite)
    )
    return {
        "splitting": norm(error) / norm(u),
        "commutator": norm(here - there) / (length**2 * norm(u)),
    }


def _cosine(u: Array, v: Array) -> Array:
    """The cosine of the angle between vectors along the last axis."""
    lengths = jnp.linalg.norm(u, axis=-1) * jnp.linalg.norm(v, axis=-1)
    # An increment of zero points nowhere.
    zero = lengths == 0
    return jnp.where(zero, 0, jnp.sum(u * v, axis=-1) / jnp.where(zero, 1, lengths))
