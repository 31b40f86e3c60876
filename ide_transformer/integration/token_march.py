"""Marches new tokens of a text with a cache of earlier tokens."""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

from ..equation import (
    AbstractTokenIntegral,
    AbstractWrappedOperator,
    Depth,
    Equation,
    OperatorField,
    State,
    TokenDomain,
    map_parts,
    parts,
    with_source,
)
from ..errors import InputError
from ..solvers import AbstractImplicitScheme
from .exits import AbstractExit
from .march import Carry, Steps, plan_steps
from .marked_programs import MarkInLoop, mark, run_marked
from .mesh import Mesh


class _OverAll(AbstractWrappedOperator):
    """The rate of new tokens by a token integral over all visible tokens."""

    operator: AbstractTokenIntegral
    visible: TokenDomain

    configurable = False

    # Earlier tokens are cached.
    pointwise: ClassVar[bool] = True

    def __call__(self, u: State, domain: TokenDomain) -> State:
        def gather(new, _):
            return mark(new, axis=u.ndim - 2, size=self.visible.num_tokens), self.visible

        return self.operator.over(u, domain, gather)


class _BlocksOverAll(eqx.Module):
    """The block at each depth, with token integrals over all visible tokens."""

    block_at: Callable[[Depth], PyTree]
    visible: TokenDomain

    def __call__(self, t: Depth) -> PyTree:
        return _over_all(self.block_at(t), self.visible)


def _over_all(operators: PyTree, visible: TokenDomain) -> PyTree:
    return map_parts(operators, AbstractTokenIntegral, lambda part, _: _OverAll(part, visible))


# A text is read in at most 16 parts of at least 8 tokens: one program reads all lengths, and a
# short text costs little.
_LEAST_PART = 8
_MOST_PARTS = 16

# For each evaluation of a token integral its arrays `[intervals, ..., tokens, …]`, such as keys
# and values.
TokenCache: TypeAlias = list[list[Array]]


class TokenMarch(eqx.Module):
    """Fixed steps for the new tokens of a text only,

        u_t(x) = Σ_i A_i(u; θ(t))(x),   x ∈ {x_n, …, x_{n+m-1}},

    on a domain of all tokens to come. Causal token integrals see earlier tokens through a cache
    of keys and values from each stage of each step. If a step fails, the states of its tokens
    are NaN."""

    steps: Steps

    def __init__(
        self,
        equation: Equation,
        solver: diffrax.AbstractSolver,
        mesh: Mesh,
        state: jax.ShapeDtypeStruct,
        exit: AbstractExit | None = None,
    ):
        reason = why_not_by_token(equation, solver, mesh, state, exit)
        if reason is not None:
            raise InputError(f"Token by token: {reason}")
        self.steps = plan_steps(equation, solver, mesh.steps or 1, state)

    @property
    def num_tokens(self) -> int:
        return self.steps.equation.domain.num_tokens

    def prefill(
        self, u0: State, length: Int[Array, ""] | int | None = None
    ) -> tuple[State, TokenCache]:
        """The states at T of the first `length` tokens, and a cache for all tokens to come."""
        tokens = u0.shape[-2]
        length = tokens if length is None else length
        part = min(tokens, max(_LEAST_PART, -(-self.num_tokens // _MOST_PARTS)))
        u1, new = eqx.filter_eval_shape(_march, self.steps, u0[..., :part, :], 0, None)

        def empty(x):
            # The first axis of the cache is intervals.
            axis = u0.ndim - 1
            return jnp.zeros((*x.shape[:axis], self.num_tokens, *x.shape[axis + 1 :]), x.dtype)

        cache = jax.tree.map(empty, new)
        u1 = jnp.zeros(u0.shape, u1.dtype)

        def read(index, state):
            u1, cache = state
            # The last part begins with tokens already read.
            start = jnp.minimum(index * part, tokens - part)
            states = lax.dynamic_slice_in_dim(u0, start, part, axis=-2)
            states, cache = self.extend(states, start, cache)
            return lax.dynamic_update_slice_in_dim(u1, states, start, axis=-2), cache

        return lax.fori_loop(0, -(-length // part), read, (u1, cache))

    def extend(
        self, u0: State, start: Int[Array, ""] | int, cache: TokenCache
    ) -> tuple[State, TokenCache]:
        """The states at T of the tokens from `start` on, and the cache with them."""
        u1, new = _march(self.steps, u0, start, cache)
        return u1, _update_cache(cache, new, start, u0.ndim - 1)


def why_not_by_token(
    equation: Equation,
    solver: diffrax.AbstractSolver,
    mesh: Mesh,
    state: jax.ShapeDtypeStruct,
    exit: AbstractExit | None = None,
) -> str | None:
    """The reason why tokens cannot be marched one by one; `None` if they can."""
    reason = _why_not_cached(equation, solver, mesh, exit)
    if reason is not None:
        return reason
    try:
        steps = plan_steps(equation, solver, mesh.steps or 1, state)
        eqx.filter_eval_shape(lambda u0: _march(steps, u0, 0, None), state)
    except InputError as error:
        return str(error)
    return None


def _march(
    steps: Steps, u0: Array, start: Int[Array, ""] | int, cache: TokenCache | None
) -> tuple[Array, TokenCache]:
    """The states at T, and the arrays to cache."""
    full = steps.equation
    name = steps.name
    points = lax.dynamic_slice_in_dim(full.domain.points, start, u0.shape[-2])
    control = with_source(full.control, u0)
    equation = Equation(control, full.constraint, TokenDomain(points))
    steps = replace(steps, equation=equation)
    visible = full.domain.first(u0.shape[-2]) if cache is None else full.domain

    def over_all(terms):
        return map_parts(
            terms,
            OperatorField,
            lambda field, _: replace(field, block_at=_BlocksOverAll(field.block_at, visible)),
        )

    def refuse(*_):
        raise InputError(
            f"{name} evaluates the field before its first step; use RK4() or Strang()."
        )

    def march_interval(u, solver_state, index, weights):
        terms = over_all(equation.interval_terms(index, weights))
        carry = Carry(u, solver_state, diffrax.RESULTS.successful)
        carry, _ = steps.advance(terms, steps.edges(index), carry, None, loop=False)
        succeeded = carry.result == diffrax.RESULTS.successful
        return jnp.where(succeeded, carry.u, jnp.nan), carry.solver_state

    def interval(carry, inputs):
        index, weights, cache = inputs

        def fill(index, new, axis, size):
            return new if cache is None else _update_cache(cache[index], new, start, axis)

        outputs, new = run_marked(march_interval, fill, *carry, index, weights)
        assert cache is None or len(new) == len(cache)
        return outputs, new

    try:
        solver_state, _ = run_marked(
            lambda u: steps.init(over_all(equation.terms_of(0)), u, None), refuse, u0
        )
        xs = steps.indices, equation.intervals(), cache
        (u1, _), new = lax.scan(interval, (u0, solver_state), xs)
    except MarkInLoop:
        raise InputError(f"{name} evaluates the field in a loop; unroll the loop.") from None
    return u1, new


def _why_not_cached(
    equation: Equation, solver: diffrax.AbstractSolver, mesh: Mesh, exit: AbstractExit | None
) -> str | None:
    """How tokens are coupled in a way that cannot be cached; `None` if they are not."""
    if mesh.controller is not None:
        return "adaptive steps depend on the whole text; use Mesh(steps=…)."
    if exit is not None:
        return "tokens that stop at different depths are not cached; set exit=None."
    if not equation.domain.in_order:
        return "the points of the token domain must increase along a line, and be known."
    for operator in eqx.filter_eval_shape(equation.control, 0.0):
        for part in parts(operator, AbstractTokenIntegral):
            if not part.causal:
                return f"{type(part).__name__} integrates over later tokens; set causal=True."
        if not _over_all(operator, equation.domain).pointwise:
            return (
                f"{type(operator.innermost).__name__} may couple tokens in ways that are not "
                "cached. If it acts on each token alone, set `pointwise: ClassVar[bool] = "
                "True` in its class; otherwise derive it from AbstractTokenIntegral."
            )
    for part in parts(solver, (diffrax.AbstractImplicitSolver, AbstractImplicitScheme)):
        return f"{type(part).__name__} is implicit; use an explicit scheme, such as RK4()."
    return None


def _update_cache(cache: PyTree, new: PyTree, start: Int[Array, ""] | int, axis: int) -> PyTree:
    return jax.tree.map(
        lambda old, x: lax.dynamic_update_slice_in_dim(old, x, start, axis), cache, new
    )
