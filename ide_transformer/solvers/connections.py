"""Schemes with learned weights for each step, between the states of all steps."""

import abc
import math
from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ..arguments import PositiveInt
from ..equation import RMSNorm
from ..errors import InputError
from .runge_kutta import refuse_past
from .scheme import AbstractFieldScheme, AbstractScheme, Step, StepField, Terms
from .splitting import LieTrotter
from .wrapper import AbstractWrapper, Projected


class AbstractConnected(AbstractScheme):
    """A scheme with learned weights for each step. They belong to their step: there is no limit
    of small steps, and no order."""

    consistent: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """The steps for which it has weights; a solve of more is refused."""

    def order(self, terms: Terms) -> None:
        return None

    def projected(self) -> diffrax.AbstractSolver:
        """Refused by default: the states that are connected are on no constraint."""
        raise InputError(
            f"{type(self).__name__}: the states that it connects are on no constraint, so the "
            "equation needs constraint=Free(); or take LearnedMultistep, whose steps are "
            "projected."
        )


class Past(eqx.Module):
    """States or increments in the order in which they were made: the first `number` of
    `values: [slots, ..., tokens, features]`; those that follow are zero.

    A march keeps it at each step for the gradient, so memory grows with the square of the
    number of steps."""

    values: Float[Array, "slots *batch tokens features"]
    number: Int[Array, ""]

    @classmethod
    def of(cls, u: Array, slots: int) -> "Past":
        """A past of one state, with room for `slots` of them."""
        values = jnp.zeros((slots, *u.shape), u.dtype)
        return cls(values.at[0].set(u), jnp.array(1))

    def plus(self, value: Array) -> "Past":
        values = lax.dynamic_update_index_in_dim(
            self.values, value.astype(self.values.dtype), self.number, 0
        )
        return Past(values, self.number + 1)


class AttentionResidual(AbstractConnected, AbstractFieldScheme):
    """Attention over depth in the place of the sum of all increments: for each operator in turn

        v_i = h A_i(u_i),   u_{i+1} = Σ_{j≤i} α_j v_j,   v_0 = u_0,
        α = softmax_j(q_i · v_j / rms(v_j)) for each token,

    i counts the operators of all steps. The queries q_i are learned and start at zero, which
    takes the mean of all v_j. Learned queries belong to their step: there is no limit of small
    steps. Reference: Attention Residuals, arXiv 2603.15031, the form with all layers.

    **Arguments:**

    - `num_steps`: steps of a solve; it cannot make more.
    - `operators`: how many the equation has.
    - `features`: width of the state.
    """

    queries: Float[Array, "steps operators features"]

    term_structure: ClassVar = diffrax.MultiTerm

    def __init__(self, num_steps: PositiveInt, operators: PositiveInt, features: PositiveInt):
        self.queries = jnp.zeros((num_steps, operators, features))

    @property
    def num_steps(self) -> int:
        return self.queries.shape[0]

    def start(self, field: StepField, u: Array) -> Past:
        steps, operators, _ = self.queries.shape
        return Past.of(u, 1 + steps * operators)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        queries = self.queries.reshape(-1, self.queries.shape[-1]).astype(u.dtype)
        past, ahead = state, u
        for one in field.of_operators(self):
            past = past.plus(one(0, ahead))
            # The first query is that of the second value.
            ahead = _attended(past, queries[past.number - 2])
        return Step.between(u, ahead, state=past)


def _attended(past: Past, query: Float[Array, " features"]) -> Array:
    """The mean of the past, weighted for each token."""
    scores = RMSNorm(eps=1e-6).project(past.values) @ query
    known = jnp.arange(len(scores)) < past.number
    known = known.reshape(-1, *(1,) * (scores.ndim - 1))
    weights = jax.nn.softmax(jnp.where(known, scores, -jnp.inf), axis=0)
    return jnp.sum(weights[..., None] * past.values, axis=0)


class LearnedMultistep(AbstractConnected, AbstractWrapper):
    """A linear multistep method with learned coefficients over all states since the first,

        x_{n+1} = Φ_h(u_n),   u_{n+1} = Σ_{j=0}^{n+1} a_{n+1,j} x_j,   x_0 = u_0,

    Φ_h a step of another scheme. It starts with a_{n,n} = 1 and the others 0, which is that
    scheme. Learned coefficients belong to their step: there is no limit of small steps. With
    `LieTrotter(Euler())` and h = 1 it is the DenseFormer, whose depth-weighted average follows
    each block. Reference: Pagliardini et al., arXiv 2402.02622.

    **Arguments:**

    - `num_steps`: steps of a solve; it cannot make more.
    - `solver`: a scheme that carries nothing of earlier steps.

    **Raises:** `InputError` for a scheme that does, such as a multistep one.
    """

    weights: Float[Array, " weights"]
    solver: diffrax.AbstractSolver

    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def __init__(self, num_steps: PositiveInt, solver: diffrax.AbstractSolver = LieTrotter()):
        last = jnp.cumsum(jnp.arange(2, num_steps + 2)) - 1
        self.weights = jnp.zeros(num_steps * (num_steps + 3) // 2).at[last].set(1.0)
        self.solver = solver

    @property
    def num_steps(self) -> int:
        # n steps have n (n + 3) / 2 of them.
        return (math.isqrt(9 + 8 * self.weights.size) - 3) // 2

    @property
    def coefficients(self) -> Float[Array, "steps states"]:
        """a: a row for each step, a column for each x_j."""
        steps = self.num_steps
        rows, columns = jnp.tril_indices(steps, 1, steps + 1)
        return jnp.zeros((steps, steps + 1)).at[rows, columns].set(self.weights)

    def projected(self) -> Projected:
        """The variant whose steps of the other scheme are projected, and their combination."""
        return Projected(self.with_projected_solver())

    def start(self, field: StepField, u: Array) -> Past:
        state = eqx.filter_eval_shape(field.start, self.solver, u)
        refuse_past(
            f"LearnedMultistep({self.num_steps}, {type(self.solver).__name__}(…))",
            self.solver,
            state,
            why="each of its steps begins without any",
            example=f"LearnedMultistep({self.num_steps}, Strang())",
        )
        return Past.of(u, self.num_steps + 1)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        past = state.plus(field.single_step(self.solver, u))
        # The first row is that of the second state.
        row = self.coefficients[past.number - 2].astype(u.dtype)
        return Step.between(u, jnp.tensordot(row, past.values, 1), state=past)
