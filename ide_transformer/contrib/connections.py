"""Schemes that connect the states of all steps, or several states side by side, by learned
weights for each step."""

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
    given_name,
    start_inside,
)


class AbstractConnected(AbstractScheme):
    """A scheme with learned weights for each step, which has no limit and no order."""

    consistent: ClassVar[bool] = False

    # The steps for which it has weights.
    num_steps: int = eqx.field(static=True)

    def order(self, terms: Terms) -> None:
        return None

    def check(self, plan: SolvePlan) -> None:
        if plan.steps is None:
            raise InputError(
                f"{type(self).__name__}: its weights are for equal steps; drop the "
                "stepsize_controller or HalfSolver."
            )
        if plan.steps != self.num_steps:
            raise InputError(
                f"{type(self).__name__}(num_steps={self.num_steps}): this solve makes "
                f"{plan.steps} steps; build it with num_steps={plan.steps}."
            )

    def projected(self) -> diffrax.AbstractSolver:
        """Raises by default: the connected states are on no constraint."""
        raise InputError(
            f"{type(self).__name__}: the states it connects are on no constraint; give the "
            "equation constraint=Free(), or take LearnedMultistep, which projects its steps."
        )


class Past(eqx.Module):
    """The states or increments made so far, the first `number` of `values`."""

    values: Float[Array, "slots *batch tokens features"]
    number: Int[Array, ""]

    @classmethod
    def of(cls, u: Array, slots: int) -> "Past":
        """A past of one state, with room for `slots` states."""
        values = jnp.zeros((slots, *u.shape), u.dtype)
        return cls(values.at[0].set(u), jnp.array(1))

    def plus(self, value: Array) -> "Past":
        values = lax.dynamic_update_index_in_dim(
            self.values, value.astype(self.values.dtype), self.number, 0
        )
        return Past(values, self.number + 1)


@checked
class AttentionResidual(AbstractConnected):
    """Attention over depth instead of the sum of all increments: for each operator in turn

        v_i = h A_i(u_i),   u_{i+1} = Σ_{j≤i} α_j v_j,   v_0 = u_0,
        α = softmax_j(q_i · v_j / rms(v_j)) for each token,

    i counts the operators of all steps. The queries q_i are learned; they start at zero, which
    takes the mean of all v_j. All v_j are kept at each step, so memory grows with the square of
    the number of steps. Reference: Attention Residuals, arXiv 2603.15031, the full form.

    **Arguments:**

    - `num_steps`: the steps of a solve.
    - `operators`: how many the equation has.
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
        for one in field.of_operators(self):
            past = past.plus(one(0, y1))
            # The first query belongs to the second value.
            query = queries[past.number - 2]
            scores = RMSNorm(eps=1e-6).project(past.values) @ query
            known = jnp.arange(len(scores)) < past.number
            known = known.reshape(-1, *(1,) * (scores.ndim - 1))
            weights = jax.nn.softmax(jnp.where(known, scores, -jnp.inf), axis=0)
            y1 = jnp.sum(weights[..., None] * past.values, axis=0)
        return Step.between(u, y1, state=past)


@checked
class LearnedMultistep(AbstractConnected, AbstractWrapper):
    """A linear multistep method with learned coefficients over all states since the first,

        x_{n+1} = Φ_h(u_n),   u_{n+1} = Σ_{j=0}^{n+1} a_{n+1,j} x_j,   x_0 = u_0,

    Φ_h a step of another scheme. It starts with a_{n,n} = 1 and the others 0, which is the
    other scheme. With `LieTrotter(Euler())` and h = 1 it is the DenseFormer, whose
    depth-weighted average follows each block. On a constraint the combination is projected
    again, which changes a state if a second projection does (`LayerNorm` with a gain for each
    feature). All states are kept at each step, so memory grows with the square of their number.
    Reference: Pagliardini et al., arXiv 2402.02622.

    **Arguments:** the steps of a solve, and a scheme that carries nothing between steps.
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
        """The variant that projects the steps of the other scheme, and their combination."""
        return Projected(self.with_projected_solver())

    def start(self, field: StepField, u: Array) -> Past:
        where = f"LearnedMultistep({self.num_steps}, {given_name(self.solver)}(…))"
        example = f"LearnedMultistep({self.num_steps}, Strang())"
        start_inside(where, self.solver, field, u, example)
        return Past.of(u, self.num_steps + 1)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        past = state.plus(field.first_step(self.solver, u).y1)
        # The first row gives the second state.
        row = self.coefficients[past.number - 2].astype(u.dtype)
        return Step.between(u, jnp.tensordot(row, past.values, 1), state=past)


# The states side by side.
Streams: TypeAlias = Float[Array, "*batch tokens streams features"]


class Connection(NamedTuple):
    """The weights between an operator and n streams, for each token; see `AbstractStreams`."""

    read: Float[Array, "*batch tokens streams"]
    write: Float[Array, "*batch tokens streams"]
    mix: Float[Array, "*batch tokens streams streams"]


class AbstractStreams(AbstractConnected):
    """A scheme with n states side by side, the streams x_1, …, x_n; for each operator in turn

        x_i ← Σ_j mix_ij x_j + write_i h A(Σ_j read_j x_j).

    All streams start from the state at depth 0, and the state is their mean.
    """

    term_structure: ClassVar = diffrax.MultiTerm

    # n.
    streams: int = eqx.field(static=True)

    @abc.abstractmethod
    def connection(self, x: Streams, step: Int[Array, ""], index: int) -> Connection:
        """The connection of operator `index` in a step, for streams `x`."""

    def start(self, field: StepField, u: Array) -> tuple[Streams, Int[Array, ""]]:
        """The streams, and the number of steps made."""
        return jnp.stack([u] * self.streams, axis=-2), jnp.array(0)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        x, made = state
        # Counting the cost of a solve makes more steps.
        step = jnp.minimum(made, self.num_steps - 1)
        for index, one in enumerate(field.of_operators(self)):
            read, write, mix = self.connection(x, step, index)
            increment = one(0, jnp.einsum("...n,...nd->...d", read, x))
            x = mix @ x + write[..., None] * increment[..., None, :]
        x = x.astype(u.dtype)
        return Step.between(u, jnp.mean(x, axis=-2), state=(x, made + 1))


def _first_reads(num_steps: int, operators: int, streams: int) -> np.ndarray:
    """One-hot: the stream that each operator of each step reads at first, in rotation."""
    place = np.arange(num_steps * operators).reshape(num_steps, operators) % streams
    return np.eye(streams)[place]


@checked
class HyperConnections(AbstractStreams):
    """Streams with learned connections, see `AbstractStreams`,

        (read_j, mix_ij) = α_j + s tanh(x̄_j W),   write_i = β_i + s' tanh(x̄_i · w),

    x̄ the streams normalised by a layer norm without gain, for each step and operator. It starts
    with W = 0, w = 0, operators that read the streams in rotation and write to all, and no
    mixing: `LieTrotter(Euler())`. The mean of the streams is read out; the paper takes the sum,
    which is equal after an output norm. Reference: Zhu et al., Hyper-Connections, arXiv
    2409.19606, the dynamic form.

    **Arguments:** see `AttentionResidual`, and `streams`, n.
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
        read = _first_reads(num_steps, operators, streams)[..., None]
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


# Sweeps of Sinkhorn and Knopp, as published.
_SWEEPS = 20
# The initial bias of an open connection; a closed one has its negative.
_OPEN = 4.0


@checked
class DoublyStochasticConnections(AbstractStreams):
    """Streams whose mixture keeps their sum, see `AbstractStreams`,

        read = σ(a + s z W),   write = 2 σ(a' + s' z W'),   mix = P(exp(A + s'' z W'')),

    for each step and operator; z is the vector of all streams of a token, normalised by its
    root mean square, and P makes rows and columns sum to 1, by 20 sweeps of Sinkhorn and Knopp.
    W starts at zero. The biases, which the paper leaves open, start so that operators read the
    streams in rotation and little is mixed. The mean of the streams is read out; the paper
    takes the sum. Reference: Manifold-Constrained Hyper-Connections, arXiv 2512.24880.

    **Arguments:** see `AttentionResidual`, and `streams`, n.
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
        read = 2 * _first_reads(num_steps, operators, streams) - 1
        mix = np.broadcast_to(2 * np.eye(streams).ravel() - 1, (*each, streams**2))
        bias = np.concatenate([read, np.zeros_like(read), mix], axis=-1)
        self.bias = float_array(_OPEN * bias)
        self.weight = jnp.zeros((*each, streams * features, self.bias.shape[-1]))
        self.scale = jnp.full((*each, 3), 0.01)

    def connection(self, x: Streams, step: Int[Array, ""], index: int) -> Connection:
        n = self.streams
        whole = RMSNorm(eps=1e-6).project(x.reshape(*x.shape[:-2], -1))
        kinds = np.repeat(np.arange(3), (n, n, n * n))
        scale = self.scale[step, index][kinds]
        logits = affine(whole @ self.weight[step, index], scale, self.bias[step, index])
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
