"""A march of new tokens, given what is remembered of those before them."""

from collections.abc import Callable
from typing import TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ..equation import (
    AbstractExactOperator,
    AbstractOperator,
    AbstractTokenIntegral,
    Depth,
    Dropout,
    Equation,
    OperatorField,
    Scaled,
    TokenDomain,
    with_source,
)
from ..errors import InputError
from ..solvers import AbstractImplicitScheme, count_evaluations, unrolled
from .checks import check_steps
from .march import tabulated
from .remember import evaluations_in_order, remember, with_memory


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
        cost = count_evaluations(solver, block, state.shape[-1])
        self.equation = tabulated(equation, cost, steps_per_interval)
        self.solver = unrolled(solver)
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
            _interval(equation, seen, self.solver, self.steps_per_interval, u0.dtype)
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


def _interval(
    equation: Equation,
    seen: TokenDomain,
    solver: diffrax.AbstractSolver,
    steps_per_interval: int,
    dtype: np.dtype,
) -> Callable[[Array, PyTree, Depth, PyTree], tuple[Array, PyTree]]:
    """The steps of one interval, written out, as a program for `with_memory`."""
    length = equation.control.interval_length
    offsets = (length * np.arange(steps_per_interval + 1) / steps_per_interval).astype(dtype)

    def interval(u, solver_state, index, weights):
        terms = _over_all(equation.interval_terms(index, weights), seen)
        for i in range(steps_per_interval):
            t0, t1 = index * length + offsets[i], index * length + offsets[i + 1]
            made_jump = i == 0 and not equation.continuous
            u, _, _, solver_state, _ = solver.step(
                terms, t0, t1, u, None, solver_state, made_jump
            )
        return u, solver_state

    return interval


def _over_all(terms: PyTree[diffrax.AbstractTerm], seen: TokenDomain) -> PyTree:
    """The terms with their token integrals over all tokens."""

    def is_field(x):
        return isinstance(x, OperatorField)

    return jax.tree.map(
        lambda x: (
            OperatorField(_BlockOverAll(x.block_at, seen), x.constraint_at, x.domain, x.index)
            if is_field(x)
            else x
        ),
        terms,
        is_leaf=is_field,
    )


class _BlockOverAll(eqx.Module):
    """A block as a function of depth, its token integrals over all tokens."""

    block_at: Callable[[Depth], PyTree]
    seen: TokenDomain

    def __call__(self, t: Depth) -> PyTree:
        return _remembering(self.block_at(t), self.seen)


def _remembering(block: PyTree, seen: TokenDomain) -> PyTree:
    return jax.tree.map(
        lambda x: _OverAll(x, seen) if _is_integral(x) else x, block, is_leaf=_is_integral
    )


def _is_integral(x: PyTree) -> bool:
    return isinstance(x, AbstractTokenIntegral)


class _OverAll(AbstractOperator):
    """A token integral over all tokens, of which the state holds the newest."""

    operator: AbstractTokenIntegral
    seen: TokenDomain

    # The others are remembered.
    pointwise = True

    def __call__(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens features"]:
        def others(new, _):
            every = remember(new, axis=u.ndim - 2, tokens=self.seen.num_tokens)
            return every, self.seen

        return self.operator.over(u, domain, others)


def why_not_by_token(
    equation: Equation, solver: diffrax.AbstractSolver, state: jax.ShapeDtypeStruct
) -> str | None:
    """Why fixed steps of `solver` cannot march the tokens one after the other, and what to
    write instead; `None` if they can.

    **Arguments:**

    - `state`: the shape `[1, features]` and dtype of the state of a token.
    """
    dimensions = equation.domain.points.shape[1]
    if dimensions != 1:
        return (
            f"the token domain has {dimensions} dimensions, in which tokens have no order; "
            "take a one-dimensional one."
        )
    for operator in eqx.filter_eval_shape(equation.control, 0.0):
        reason = _why_coupled(operator, equation.domain)
        if reason is not None:
            return reason
    name = type(solver).__name__
    implicit = _implicit(solver)
    if implicit:
        inside = "" if implicit[0] == name else f" in {name}"
        return (
            f"{implicit[0]}{inside} is implicit: how often it evaluates the field depends on "
            "the whole text, so there is no evaluation at which a token could be remembered; "
            "use an explicit scheme, for example RK4() or Strang()."
        )
    solver = unrolled(solver)
    t0, t1 = jnp.zeros((), state.dtype), jnp.ones((), state.dtype)
    domain = TokenDomain(equation.domain.points[:1])

    def init(u):
        terms = _over_all(_sourced(equation, u, domain).terms_of(0), domain)
        return solver.init(terms, t0, t1, u, None)

    def interval(u):
        one = _sourced(equation, u, domain)
        weights = jax.tree.map(lambda x: x[0], one.intervals())
        steps = _interval(one, domain, solver, 1, state.dtype)
        return steps(u, solver.init(one.terms_of(0), t0, t1, u, None), t0, weights)

    if evaluations_in_order(init, state) != 0:
        return (
            f"{name} evaluates the field before its first step, where tokens are not "
            "remembered; use another scheme, for example RK4() or Strang()."
        )
    if evaluations_in_order(interval, state) is None:
        return (
            f"{name} evaluates the field in a loop, in which its evaluations cannot be told "
            "apart; write them out one after the other, as RK4 does."
        )
    return None


def _sourced(equation: Equation, u: Array, domain: TokenDomain) -> Equation:
    return Equation(with_source(equation.control, u), equation.constraint, domain)


def _why_coupled(operator: AbstractOperator, domain: TokenDomain) -> str | None:
    for part in filter(_is_integral, jax.tree.leaves(operator, is_leaf=_is_integral)):
        name = type(part).__name__
        if not part.causal:
            return (
                f"{name} integrates over tokens that are still to come; make it causal, "
                f"{name}(…, causal=True)."
            )
        if isinstance(part, AbstractExactOperator):
            return f"{name} is solved by its flow, which couples tokens; use an Attention."
    if _remembering(operator, domain).pointwise:
        return None
    while isinstance(operator, Scaled | Dropout):
        operator = operator.operator
    name = type(operator).__name__
    return (
        f"{name} may couple tokens in ways that are not remembered. If it acts token by token, "
        f"say so in its class, `pointwise: ClassVar[bool] = True`; if it is a causal integral "
        "over tokens, derive it from AbstractTokenIntegral."
    )


def _implicit(solver: diffrax.AbstractSolver) -> list[str]:
    """The names of the implicit schemes inside a scheme."""

    def is_implicit(x):
        # Not isinstance, which looks through wrappers.
        kinds = (diffrax.AbstractImplicitSolver, AbstractImplicitScheme)
        return issubclass(type(x), kinds)

    leaves = jax.tree.leaves(solver, is_leaf=is_implicit)
    return [type(x).__name__ for x in leaves if is_implicit(x)]
