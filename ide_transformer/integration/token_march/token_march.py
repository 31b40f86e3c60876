from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ...equation import Equation, TokenDomain, with_source
from ...errors import InputError
from ..march import Steps, plan_steps
from ..solve import Discretization
from .by_token import why_not_by_token
from .over_all import interval_over_all
from .programs import run_marked


# For each evaluation of a token integral, arrays `[intervals, ..., tokens, …]` of all tokens;
# of attention a pair, keys and values.
TokenCache: TypeAlias = list[list[Array]]


class TokenMarch(eqx.Module):
    """Fixed steps for the newest tokens of a text alone,

        u_t(x) = Σ_i A_i(u; θ(t))(x),   x ∈ {x_n, …, x_{n+m-1}}.

    Causal token integrals see the tokens before x_n through the cache, in which each
    evaluation, that is each stage of each step, has kept its keys and values. No token sees a
    later one, so the states are those of a march of all tokens at once. Where a step fails,
    the states of its tokens are NaN from there on.

    **Arguments:**

    - `equation`: its domain holds all tokens that there will be.
    - `discretization`: an explicit scheme with fixed steps.
    - `state`: the shape `[1, features]` and dtype of the state of a token.

    **Raises:** `InputError` where the tokens cannot be marched one after the other, with the
    reason that `why_not_by_token` gives.
    """

    steps: Steps

    def __init__(
        self, equation: Equation, discretization: Discretization, state: jax.ShapeDtypeStruct
    ):
        reason = why_not_by_token(equation, discretization, state)
        if reason is not None:
            raise InputError(f"Token by token: {reason}")
        solver, number = discretization.solver, discretization.steps_per_interval
        self.steps = plan_steps(equation, solver, number, state)

    @property
    def num_tokens(self) -> int:
        """The number of tokens that there will be."""
        return self.steps.equation.domain.num_tokens

    def prefill(
        self, u0: Float[Array, "*batch tokens features"]
    ) -> tuple[Float[Array, "*batch tokens features"], TokenCache]:
        """The states at depth T of the first tokens, and their cache, with room for the
        others."""
        u1, new = self._march(u0, 0, None)
        axis = u0.ndim - 1

        def empty(x):
            return jnp.zeros((*x.shape[:axis], self.num_tokens, *x.shape[axis + 1 :]), x.dtype)

        return u1, _written(jax.tree.map(empty, new), new, 0, axis)

    def extend(
        self,
        u0: Float[Array, "*batch tokens features"],
        start: Int[Array, ""] | int,
        cache: TokenCache,
    ) -> tuple[Float[Array, "*batch tokens features"], TokenCache]:
        """The states at depth T of the tokens from `start` on, and the cache with them."""
        u1, new = self._march(u0, start, cache)
        return u1, _written(cache, new, start, u0.ndim - 1)

    def _march(
        self, u0: Array, start: Int[Array, ""] | int, cache: TokenCache | None
    ) -> tuple[Array, TokenCache]:
        """The states at depth T, and the arrays to cache of the tokens marched."""
        whole = self.steps.equation
        points = lax.dynamic_slice_in_dim(whole.domain.points, start, u0.shape[-2])
        control = with_source(whole.control, u0)
        equation = Equation(control, whole.constraint, TokenDomain(points))
        steps = eqx.tree_at(lambda steps: steps.equation, self.steps, equation)
        seen = whole.domain.first(u0.shape[-2]) if cache is None else whole.domain
        program = interval_over_all(steps, seen)

        def interval(carry, inputs):
            index, weights, cache = inputs

            def fill(number, new, axis, size):
                return new if cache is None else _written(cache[number], new, start, axis)

            outputs, new = run_marked(program, fill, *carry, index, weights)
            if cache is not None and len(new) != len(cache):
                raise RuntimeError(f"{len(cache)} evaluations are cached, but {len(new)} made.")
            return outputs, new

        carry = u0, steps.init(equation.terms_of(0), u0, None)
        xs = steps.indices, equation.intervals(), cache
        (u1, _), new = lax.scan(interval, carry, xs)
        return u1, new


def _written(cache: PyTree, new: PyTree, start: Int[Array, ""] | int, axis: int) -> PyTree:
    """The cache with the arrays of the tokens from `start` on replaced."""
    return jax.tree.map(
        lambda old, x: lax.dynamic_update_slice_in_dim(old, x, start, axis), cache, new
    )
