"""Measures how far the step of each layer is from the solution, and the error without it."""

from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer import solvers
from ide_transformer.arguments import PositiveInt
from ide_transformer.contrib.meshes import Quantity, read_outputs
from ide_transformer.dynamics import (
    March,
    over_interval,
    refuse_memory,
    scan_intervals,
    square,
    step_ends,
)
from ide_transformer.equation import Equation, State
from ide_transformer.integration import TokenNorm
from ide_transformer.models import Model


class Defects(NamedTuple):
    """Defects of the native steps, `[intervals]` each. u is the state where an interval begins,
    Φ_h the native step or steps to its end, `δ = Φ_h u - u`, and |·| the root mean square over
    features and tokens without padding:

    - `state`: |u|.
    - `increment`: |δ| / |u|.
    - `turn`: `1 - cos(u, Φ_h u)`, the mean over tokens; ShortGPT's block influence (Men et al.,
      arXiv 2403.03853).
    - `alignment`: the cosine of δ and the δ before; NaN for the first.
    - `step_doubling`: `|Φ_{h/2} Φ_{h/2} u - Φ_h u| / |u|`, the local error, `O(h^{p+1})` for a
      scheme of order p; all of several steps are halved.
    - `splitting`: `|S u - T u| / |u|`, S and T the steps of Strang and Lie–Trotter.
    - `commutator`: `|T u - T' u| / (h² |u|)`, T' Lie–Trotter in the opposite order; for linear
      operators and Euler sub-steps `|[A_2, A_1] u| / |u|`, times n for n steps in an interval.

    The last two are NaN for schemes that are not splittings, such as `Projected`.
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
    u0: State,
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: PositiveInt = 1,
) -> Defects:
    """The defects along the march of `solver`, with equal steps in each interval. Reference for
    step doubling: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, section
    II.4."""
    refuse_memory("equation_defects", equation, solver, u0)
    solver = solvers.prepared(solver, equation.constraint)
    weights = equation.domain.weights
    counted = jnp.ones(u0.shape[-2]) if weights is None else weights > 0
    norm = TokenNorm(counted.astype(u0.dtype))
    tokens = jnp.broadcast_to(counted, u0.shape[:-1]).astype(u0.dtype)

    def flat(x):
        return (x * tokens[..., None]).ravel()  # without padding

    def visit(carry, terms, start, _):
        u, previous = carry
        edges, finer = (step_ends(equation, start, n * steps_per_interval) for n in (1, 2))
        stepped = over_interval(solver, terms, edges, u)
        halves = over_interval(solver, terms, finer, u)
        increment = stepped - u
        size = norm(u)
        splitting = commutator = jnp.full((), jnp.nan, u.dtype)
        if (sub_solver := getattr(solver, "sub_solver", None)) is not None:
            plain = solvers.LieTrotter(sub_solver)
            opposite = diffrax.MultiTerm(*reversed(terms.terms))
            here = over_interval(plain, terms, edges, u)
            there = over_interval(plain, opposite, edges, u)
            symmetric = over_interval(solvers.Strang(sub_solver), terms, edges, u)
            step = edges[1] - edges[0]
            length = edges[-1] - edges[0]
            splitting = norm(symmetric - here) / size
            commutator = norm(here - there) / (step * length * size)
        defects = Defects(
            state=size,
            increment=norm(increment) / size,
            turn=1 - jnp.average(_cosine(u, stepped), weights=tokens),
            alignment=_cosine(flat(increment), flat(previous)),
            step_doubling=norm(halves - stepped) / size,
            splitting=splitting,
            commutator=commutator,
        )
        return (stepped, increment), defects

    carry = (u0, jnp.full_like(u0, jnp.nan))
    _, defects = scan_intervals(equation, visit, carry, dtype=u0.dtype)
    return defects


def defects(model: Model, inputs: PyTree[ArrayLike]) -> Defects:
    """The defects of a model's native steps in each interval, for a batch of inputs."""
    march = March.of("defects", model, inputs)
    return equation_defects(
        march.equation, march.u0, solver=march.solver, steps_per_interval=march.steps
    )


@eqx.filter_jit
def removal_estimate(
    model: Model, inputs: PyTree[ArrayLike], read: Quantity | None = None
) -> Float[Array, " intervals"]:
    """The error of leaving out interval l, to first order,

        |J_l δ_l| / |y|,   δ_l = Φ_l u_l - u_l,   J_l = ∂y / ∂u_{l+1}:

    the defect of the identity in place of Φ_l, the native steps, carried by the linearised
    march to y, what is read of the outputs (see `Target`). Each interval costs about a solve.
    Reference for the transport of local errors: Hairer, Nørsett,
    Wanner, Solving Ordinary Differential Equations I, section II.3.
    """
    march = March.of("removal_estimate", model, inputs)

    def read_after(pushes):
        states = march.states(pushes)
        return read_outputs(model, model.outputs(states[-1], inputs), inputs, read), states

    zeros = march.no_pushes
    y, transport, states = jax.linearize(read_after, zeros, has_aux=True)
    increments = jnp.diff(states, axis=0)
    carried = jax.lax.map(
        lambda n: square(transport(zeros.at[n + 1].set(increments[n]))),
        jnp.arange(len(increments)),
    )
    return jnp.sqrt(carried / square(y))


def _cosine(u: Array, v: Array) -> Array:
    lengths = jnp.linalg.norm(u, axis=-1) * jnp.linalg.norm(v, axis=-1)
    # An increment of zero points nowhere.
    zero = lengths == 0
    return jnp.where(zero, 0, jnp.sum(u * v, axis=-1) / jnp.where(zero, 1, lengths))
