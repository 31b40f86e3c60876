"""A march of new tokens, given what is remembered of those before them."""

from typing import TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ...equation import Equation, TokenDomain, with_source
from ...errors import InputError
from ...solvers import count_evaluations, unrolled
from ..checks import check_steps
from ..march import tabulated
from .by_token import why_not_by_token
from .cache import with_memory
from .over_all import interval_over_all


# For each evaluation of a token integral in an interval, what it remembers of all tokens:
# arrays `[intervals, ..., tokens, …]`; of attention a pair, keys and values.
Memory: TypeAlias = list[list[Array]]


class TokenMarch(eqx.Module):
    """Fixed steps for the newest tokens of a text alone,

        u_t(x) = Σ_i A_i(u; θ(t))(x),   x ∈ {x_n, …, x_{n+m-1}}.

    Causal token integrals see of the tokens before x_n what they remembered when those were
    marched: of each token at each evaluation, that is at each stage of each step. As no token
    sees a later one, the states are those of a march of all tokens at once.

    **Arguments:**

    - `equation`: its domain holds all tokens that there will be.
    - `solver`, `steps_per_interval`: as of `solve`.
    - `state`: the shape `[1, features]` and dtype of the state of a token.

    **Raises:** `InputError` where the tokens cannot be marched one after the other, with the
    reason that `why_not_by_token` gives.
    """

    equation: Equation
    solver: diffrax.AbstractSolver
    steps_per_interval: int = eqx.field(static=True)

    def __init__(
        self,
        equation: Equation,
        *,
        solver: diffrax.AbstractSolver,
        steps_per_interval: int,
        state: jax.ShapeDtypeStruct,
    ):
        check_steps(steps_per_interval)
        reason = why_not_by_token(equation, solver, state)
        if reason is not None:
            raise InputError(f"Token by token: {reason}")
        block = eqx.filter_eval_shape(equation.control, 0.0)
        self.solver = unrolled(solver)
        cost = count_evaluations(self.solver, block, state.shape[-1])
        self.equation = tabulated(equation, cost, steps_per_interval)
        self.steps_per_interval = steps_per_interval

    def begin(
        self, u0: Float[Array, "*batch tokens features"]
    ) -> tuple[Float[Array, "*batch tokens features"], Memory]:
        """The states at depth T of the first tokens, and what is remembered of them, with room
        for the others."""
        u1, new = self._march(u0, 0, None)
        tokens, axis = self.equation.domain.num_tokens, u0.ndim - 1

        def with_room(x):
            shape = (*x.shape[:axis], tokens, *x.shape[axis + 1 :])
            return jnp.zeros(shape, x.dtype)

        return u1, _written(jax.tree.map(with_room, new), new, 0, axis)

    def go_on(
        self,
        u0: Float[Array, "*batch tokens features"],
        start: Int[Array, ""] | int,
        memory: Memory,
    ) -> tuple[Float[Array, "*batch tokens features"], Memory]:
        """The states at depth T of the tokens from `start` on, and what is then remembered."""
        u1, new = self._march(u0, start, memory)
        return u1, _written(memory, new, start, u0.ndim - 1)

    def _march(
        self, u0: Array, start: Int[Array, ""] | int, memory: Memory | None
    ) -> tuple[Array, Memory]:
        """The states at depth T and what is remembered of the tokens marched."""
        every = self.equation.domain
        points = lax.dynamic_slice_in_dim(every.points, start, u0.shape[-2])
        control = with_source(self.equation.control, u0)
        equation = Equation(control, self.equation.constraint, TokenDomain(points))
        seen = equation.domain if memory is None else every
        interval = with_memory(
            interval_over_all(equation, seen, self.solver, self.steps_per_interval, u0.dtype)
        )
        terms, h = equation.terms_of(0), control.interval_length / self.steps_per_interval
        zero = jnp.zeros((), u0.dtype)
        solver_state = self.solver.init(terms, zero, zero + h, u0, None)

        def step(carry, inputs):
            of_interval, remembered = inputs
            return interval(remembered, start, *carry, *of_interval)

        indices = jnp.arange(control.num_intervals, dtype=u0.dtype)
        (u1, _), new = lax.scan(
            step, (u0, solver_state), ((indices, equation.intervals()), memory)
        )
        return u1, new


def _written(memory: Memory, new: Memory, start: Int[Array, ""] | int, axis: int) -> Memory:
    return jax.tree.map(
        lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, axis), memory, new
    )
