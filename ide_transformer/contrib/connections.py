"""Schemes with learned connections between the states of all steps, or between several states
side by side."""

import abc
from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.equation import LayerNorm, RMSNorm, affine, float_array
from ide_transformer.errors import InputError
from ide_transformer.solvers import (
    AbstractScheme,
    AbstractWrapper,
    LieTrotter,
    Projected,
    SolvePlan,
    Step,
    StepField,
    Terms,
    scheme_name,
    start_inside,
)


class AbstractConnected(AbstractScheme):
    """A scheme with learned weights for each step. It has no limit and no order."""

    consistent: ClassVar[bool] = False

    # The number of steps for which it has weights.
    num_steps: int = eqx.field(static=True)

    def order(self, terms: Terms) -> None:
        return None

    def check(self, plan: SolvePlan) -> None:
        if plan.steps != self.num_steps:
            steps = "adaptive" if plan.steps is None else plan.steps
            raise InputError(
                f"{type(self).__name__}: its weights are for num_steps={self.num_steps} equal "
                f"steps, but this solve makes {steps} steps. Set num_steps to the number of "
                "all steps, and remove a stepsize_controller or HalfSolver."
            )

    def projected(self) -> diffrax.AbstractSolver:
        """Raises by default, since the connected states leave the constraint."""
        raise InputError(
            f"{type(self).__name__}: the states it connects are on no constraint; set "
            "constraint=Free(), or use LearnedMultistep, which projects its steps."
        )


class Past(eqx.Module):
    """The states or increments so far: the first `count` of `values`."""

    values: Float[Array, "slots *batch tokens features"]
    count: Int[Array, ""]

    @classmethod
    def of(cls, u: Array, slots: int) -> "Past":
        """A past of one state, with room for `slots` states."""
        values = jnp.zeros((slots, *u.shape), u.dtype)
        return cls(values.at[0].set(u), jnp.array(1))

    def append(self, value: Array) -> "Past":
        values = lax.dynamic_update_index_in_dim(
            self.values, value.astype(self.values.dtype), self.count, 0
        )
        return Past(values, self.count + 1)


@checked
class AttentionResidual(AbstractConnected):
    """Attention over depth in place of a sum of increments; for each operator in turn

        v_i = h A_i(u_i),   u_{i+1} = Σ_{j≤i} α_j v_j,   v_0 = u_0,
        α = softmax_j(q_i · v_j / rms(v_j)) for each token,

    where i counts the operators of all steps. The learned queries q_i start at zero, which
    gives the mean of all v_j. Every step stores all v_j, so memory grows with the square of the
    number of steps. Reference: Attention Residuals, arXiv 2603.15031, the full form.

    **Arguments:**

    - `num_steps`: the steps of a solve.
    - `operators`: the number of operators of the equation.
    - `features`: the width of the state.
    """

    queries: Float[Array, "steps operators features"]

    term_structure: ClassVar = diffrax.MultiTerm

    def __init__(self, num_steps: PositiveInt, operators: PositiveInt, features: PositiveInt):
        self.num_steps = num_steps
        self.queries = jnp.zeros((num_steps, operators, features))

    def start(self, field: StepField, u: Array) -> Past:
        steps, operators, _ = self.queries.shape
        return Past.of(u, 1 + steps * operators)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        queries = self.queries.reshape(-1, self.queries.shape[-1]).astype(u.dtype)
        past = state
        y1 = u
        for operator_field in field.of_operators(self):
            past = past.append(operator_field(0, y1))
            # The first query belongs to the second value.
            query = queries[past.count - 2]
            scores = RMSNorm(eps=1e-6).project(past.values) @ query
            is_past = jnp.arange(len(scores)) < past.count
            is_past = is_past.reshape(-1, *(1,) * (scores.ndim - 1))
            weights = jax.nn.softmax(jnp.where(is_past, scores, -jnp.inf), axis=0)
            y1 = jnp.sum(weights[..., None] * past.values, axis=0)
        return Step.between(u, y1, state=past)


@checked
class LearnedMultistep(AbstractConnected, AbstractWrapper):
    """A linear multistep method with learned coefficients over all states since the first,

        x_{n+1} = Φ_h(u_n),   u_{n+1} = Σ_{j=0}^{n+1} a_{n+1,j} x_j,   x_0 = u_0,

    Φ_h a step of `solver`. Initially a_{n,n} = 1 and all others are 0, which is `solver` alone.
    With `LieTrotter(Euler())` and h = 1 it is the DenseFormer, whose depth-weighted average
    follows each block. On a constraint the combination is projected again. With a projection
    that is not idempotent (`LayerNorm` with a gain for each feature) this changes the state.
    Every step stores all states, so memory grows with the square of their number. Reference:
    Pagliardini et al., arXiv 2402.02622.

    **Arguments:**

    - `num_steps`: the steps of a solve.
    - `solver`: a scheme that carries nothing between steps.
    """

    weights: Float[Array, " weights"]
    solver: diffrax.AbstractSolver

    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def __init__(self, num_steps: PositiveInt, solver: diffrax.AbstractSolver = LieTrotter()):
        weights = np.zeros(num_steps * (num_steps + 3) // 2)
        weights[np.cumsum(np.arange(2, num_steps + 2)) - 1] = 1
        self.weights = float_array(weights)
        self.num_steps = num_steps
        self.solver = solver

    @property
    def coefficients(self) -> Float[Array, "steps states"]:
        """a: a row for each step, a column for each x_j."""
        steps = self.num_steps
        rows, columns = jnp.tril_indices(steps, 1, steps + 1)
        return jnp.zeros((steps, steps + 1)).at[rows, columns].set(self.weights)

    def projected(self) -> Projected:
        """Projects the steps of `solver`, and their combination."""
        return Projected(self.with_projected_solver())

    def start(self, field: StepField, u: Array) -> Past:
        where = f"LearnedMultistep({self.num_steps}, {scheme_name(self.solver)}(…))"
        example = f"LearnedMultistep({self.num_steps}, Strang())"
        start_inside(where, self.solver, field, u, example)
        return Past.of(u, self.num_steps + 1)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        past = state.append(field.first_step(self.solver, u).y1)
        # The first row gives the second state.
        row = self.coefficients[past.count - 2].astype(u.dtype)
        return Step.between(u, jnp.tensordot(row, past.values, 1), state=past)


Streams: TypeAlias = Float[Array, "*batch tokens streams features"]


class Connection(NamedTuple):
    """Weights that connect an operator to n streams at each token, see `AbstractStreams`."""

    read: Float[Array, "*batch tokens streams"]
    write: Float[Array, "*batch tokens streams"]
    mix: Float[Array, "*batch tokens streams streams"]


class AbstractStreams(AbstractConnected):
    """A scheme with n states side by side, the streams x_1, …, x_n; for each operator in turn

        x_i ← Σ_j mix_ij x_j + write_i h A(Σ_j read_j x_j).

    All streams start as the initial state. The state is their mean.
    """

    term_structure: ClassVar = diffrax.MultiTerm

    # n.
    streams: int = eqx.field(static=True)

    @abc.abstractmethod
    def connection(self, x: Streams, step: Int[Array, ""], index: int) -> Connection:
        """The connection of operator `index` in a step, for streams `x`."""

    def start(self, field: StepField, u: Array) -> tuple[Streams, Int[Array, ""]]:
        """The streams, and the number of steps so far."""
        return jnp.stack([u] * self.streams, axis=-2), jnp.array(0)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        x, steps_so_far = state
        # Counting the cost of a solve makes more steps.
        step = jnp.minimum(steps_so_far, self.num_steps - 1)
        for index, operator_field in enumerate(field.of_operators(self)):
            read, write, mix = self.connection(x, step, index)
            increment = operator_field(0, jnp.einsum("...n,...nd->...d", read, x))
            x = mix @ x + write[..., None] * increment[..., None, :]
        x = x.astype(u.dtype)
        return Step.between(u, jnp.mean(x, axis=-2), state=(x, steps_so_far + 1))


def _initial_reads(num_steps: int, operators: int, streams: int) -> np.ndarray:
    """One-hot: the stream that each operator reads initially, in rotation."""
    stream = np.arange(num_steps * operators).reshape(num_steps, operators) % streams
    return np.eye(streams)[stream]


@checked
class HyperConnections(AbstractStreams):
    """Streams with learned connections, see `AbstractStreams`,

        (read_j, mix_ij) = α_j + s tanh(x̄_j W),   write_i = β_i + s' tanh(x̄_i · w),

    for each step and operator, where x̄ are the streams after a layer norm without gain.
    Initially W = 0 and w = 0, operators read the streams in rotation and write to all, and
    nothing is mixed: this is `LieTrotter(Euler())`. The read-out sees the mean of the streams;
    in the paper it sees the sum, which is equal after an output norm. Reference: Zhu et al.,
    Hyper-Connections, arXiv 2409.19606, the dynamic form.

    **Arguments:** see `AttentionResidual`, and

    - `streams`: n.
    """

    alpha: Float[Array, "steps operators streams one_and_streams"]
    beta: Float[Array, "steps operators streams"]
    alpha_weight: Float[Array, "steps operators features one_and_streams"]
    beta_weight: Float[Array, "steps operators features"]
    alpha_scale: Float[Array, "steps operators"]
    beta_scale: Float[Array, "steps operators"]

    def __init__(
        self,
        num_steps: PositiveInt,
        operators: PositiveInt,
        features: PositiveInt,
        streams: PositiveInt = 4,
    ):
        self.num_steps = num_steps
        self.streams = streams
        each = (num_steps, operators)
        read = _initial_reads(num_steps, operators, streams)[..., None]
        mix = np.broadcast_to(np.eye(streams), (*each, streams, streams))
        self.alpha = float_array(np.concatenate([read, mix], axis=-1))
        self.beta = jnp.ones((*each, streams))
        self.alpha_weight = jnp.zeros((*each, features, 1 + streams))
        self.beta_weight = jnp.zeros((*each, features))
        self.alpha_scale = self.beta_scale = jnp.full(each, 0.01)

    def connection(self, x: Streams, step: Int[Array, ""], index: int) -> Connection:
        normal = LayerNorm().project(x)
        dynamic = jnp.tanh(normal @ self.alpha_weight[step, index])
        alpha = jnp.broadcast_to(self.alpha[step, index], dynamic.shape)
        alpha = alpha + self.alpha_scale[step, index] * dynamic
        dynamic = jnp.tanh(normal @ self.beta_weight[step, index])
        beta = affine(self.beta_scale[step, index] * dynamic, None, self.beta[step, index])
        return Connection(alpha[..., 0], beta, jnp.swapaxes(alpha[..., 1:], -1, -2))


# As published.
_SWEEPS = 20
# The initial bias of an open connection; a closed connection has the negative.
_OPEN = 4.0


@checked
class DoublyStochasticConnections(AbstractStreams):
    """Streams whose sum is preserved by mixing, see `AbstractStreams`,

        read = σ(a + s z W),   write = 2 σ(a' + s' z W'),   mix = P(exp(A + s'' z W'')),

    for each step and operator. z is the vector of all streams of a token, divided by its root
    mean square. P makes rows and columns sum to 1 by 20 Sinkhorn–Knopp sweeps. W starts at
    zero. The paper does not give the initial biases; here operators read the streams in
    rotation, and little is mixed. The read-out sees the mean of the streams; in the paper it
    sees the sum. Reference: Manifold-Constrained Hyper-Connections, arXiv 2512.24880.

    **Arguments:** see `AttentionResidual`, and

    - `streams`: n.
    """

    bias: Float[Array, "steps operators connections"]
    weight: Float[Array, "steps operators streams_and_features connections"]
    scale: Float[Array, "steps operators three"]

    def __init__(
        self,
        num_steps: PositiveInt,
        operators: PositiveInt,
        features: PositiveInt,
        streams: PositiveInt = 4,
    ):
        self.num_steps = num_steps
        self.streams = streams
        each = (num_steps, operators)
        read = 2 * _initial_reads(num_steps, operators, streams) - 1
        mix = np.broadcast_to(2 * np.eye(streams).ravel() - 1, (*each, streams**2))
        bias = np.concatenate([read, np.zeros_like(read), mix], axis=-1)
        self.bias = float_array(_OPEN * bias)
        self.weight = jnp.zeros((*each, streams * features, self.bias.shape[-1]))
        self.scale = jnp.full((*each, 3), 0.01)

    def connection(self, x: Streams, step: Int[Array, ""], index: int) -> Connection:
        n = self.streams
        z = RMSNorm(eps=1e-6).project(x.reshape(*x.shape[:-2], -1))
        kinds = np.repeat(np.arange(3), (n, n, n * n))
        scale = self.scale[step, index][kinds]
        logits = affine(z @ self.weight[step, index], scale, self.bias[step, index])
        read, write, mix = jnp.split(logits, (n, 2 * n), axis=-1)
        mix = doubly_stochastic(mix.reshape(*mix.shape[:-1], n, n))
        return Connection(jax.nn.sigmoid(read), 2 * jax.nn.sigmoid(write), mix)


def doubly_stochastic(logits: Float[Array, "*shape n n"]) -> Float[Array, "*shape n n"]:
    """`exp(logits)`, scaled by 20 sweeps so that rows and columns sum to 1."""

    def sweep(log: Array, _: None) -> tuple[Array, None]:
        log = log - jax.nn.logsumexp(log, axis=-2, keepdims=True)
        return log - jax.nn.logsumexp(log, axis=-1, keepdims=True), None

    log, _ = lax.scan(sweep, logits, length=_SWEEPS)
    return jnp.exp(log)
