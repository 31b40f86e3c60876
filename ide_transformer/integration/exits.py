"""Exits: rules for tokens to stop before the end of a solve."""

import abc
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from ..arguments import NonNegativeFloat, checked
from ..equation import AbstractConstraint, Free, State, parts
from ..errors import InputError
from ..solvers import (
    AbstractScheme,
    EvaluationCount,
    Step,
    StepField,
    first_failure,
    start_inside,
)
from .march import Steps, march
from .output import Start, Trajectory, finite


class Progress(NamedTuple):
    """The progress of a march after step k of n.

    - `u`: the state `u_k`.
    - `increment`, `earlier`: `Δ_k = u_k - u_{k-1}` and `Δ_{k-1}`, NaN after the first step.
    - `remaining`: `r = n - k`.
    - `read_out`: the map from a state to the outputs of the model.
    """

    u: State
    increment: State
    earlier: State
    remaining: Float[Array, ""]
    read_out: Callable[[Array], Array]

    def end(self, order: int) -> State:
        """The state at depth T, extrapolated by Newton's backward differences of order 0 to 2,

            E_0 = u_k,   E_1 = E_0 + r Δ_k,   E_2 = E_1 + r (r+1)/2 (Δ_k - Δ_{k-1}).

        The error of E_q is `O((r h)^{q+1})`.
        """
        r = self.remaining
        end = self.u
        if order >= 1:
            end = end + r * self.increment
        if order >= 2:
            end = end + r * (r + 1) / 2 * (self.increment - self.earlier)
        return end


class AbstractExit(eqx.Module):
    """A rule for stopping early. A token stops after the first step at which `measure`, which a
    subclass defines, is below `tolerance`. From then on it stays, or moves by the increment of
    its last step:

        u_{k+1}(x) = u_k(x)   or   u_{k+1}(x) = u_k(x) + Δ(x).

    Other tokens still see it, and see it move between the stages of a step. A solve saves time
    only after all tokens of a batch have stopped. Reference: Schuster et al., arXiv 2207.07061.

    **Arguments:**

    - `tolerance`: in the unit of the measure.
    - `stops`: whether each `"token"` stops by its measure, or a `"sample"` by the mean over its
      tokens without padding.
    - `order`: 0 to stay, 1 to move in a straight line. A constraint needs 0.
    """

    tolerance: NonNegativeFloat
    stops: Literal["token", "sample"] = eqx.field(static=True, default="token")
    order: Literal[0, 1] = eqx.field(static=True, default=0)

    @abc.abstractmethod
    def measure(self, progress: Progress) -> Float[Array, "*batch tokens"]:
        """The number to compare with the tolerance, for each token, or for each sample if the
        outputs have no axis of tokens. NaN stops no token."""

    def each(
        self, progress: Progress, weights: Float[Array, "*domains tokens"]
    ) -> Float[Array, "*batch tokens"]:
        """For each token the measure that stops it: its own, or the mean of its sample."""
        measure = self.measure(progress)
        tokens = progress.u.shape[:-1]
        if self.stops == "token":
            if measure.shape != tokens:
                raise InputError(
                    f"{type(self).__name__}: measure has shape {measure.shape}, expected "
                    f"{tokens}; for one output per sample set stops='sample'."
                )
            return measure
        if measure.shape == tokens:
            is_real = jnp.broadcast_to(weights > 0, tokens)
            measure = jnp.sum(jnp.where(is_real, measure, 0), -1) / jnp.sum(is_real, -1)
        return jnp.broadcast_to(measure[..., None], tokens)


@checked
def divergence(
    expected: Float[Array, "*points classes"], outputs: Float[Array, "*points classes"]
) -> Float[Array, "*points"]:
    """`KL(p ‖ q) = Σ_y p(y) log p(y)/q(y)` in nats, for p and q with logits `expected` and
    `outputs`: the growth of the mean cross-entropy if p is right and q is used."""
    p = jax.nn.log_softmax(expected)
    q = jax.nn.log_softmax(outputs)
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


@checked
def relative_difference(
    expected: Float[Array, "samples points *channels"],
    outputs: Float[Array, "samples points *channels"],
) -> Float[Array, "samples points"]:
    """`|expected - outputs|` at each point, in units of the root mean square of `|expected|`
    over the sample; `|·|` is the norm over channels."""
    shape = (*expected.shape[:2], -1)
    expected = expected.reshape(shape)
    outputs = outputs.reshape(shape)
    size = jnp.sqrt(jnp.mean(jnp.sum(expected**2, axis=-1), axis=-1, keepdims=True))
    return jnp.linalg.norm(expected - outputs, axis=-1) / jnp.where(size == 0, 1, size)


@checked
class EstimatedExit(AbstractExit):
    """Exit by the estimated effect of the remaining steps on the outputs,

        d( R(E_{q+1}), R(E_q) ),

    R the read-out, E_p the state at T extrapolated with order p (`Progress.end`), q = `order`.
    A stopped token ends at E_q. E_{q+1} estimates its error, as in an embedded pair. With
    `divergence` the tolerance is in nats, about the mean growth of the loss. Each step costs
    two read-outs, more than a layer for a large vocabulary. Reference: Hairer, Nørsett, Wanner,
    Solving Ordinary Differential Equations I, II.4.

    **Arguments:**

    - `tolerance`: in the unit of `difference`.
    - `stops`: whether each `"token"` stops by its measure, or a `"sample"` by the mean over its
      tokens without padding.
    - `order`: 0 to stay after stopping, 1 to move in a straight line. A constraint needs 0.
    - `difference`: d, of expected and actual outputs: `divergence` of logits,
      `relative_difference` of functions, or your own function.
    """

    order: Literal[0, 1] = eqx.field(static=True, default=1)
    difference: Callable[[Array, Array], Array] = eqx.field(static=True, default=divergence)

    def measure(self, progress: Progress) -> Float[Array, "*batch tokens"]:
        expected = progress.read_out(progress.end(self.order + 1))
        outputs = progress.read_out(progress.end(self.order))
        # Rounding may make a divergence negative, which is below a tolerance of 0.
        return jnp.maximum(self.difference(expected, outputs), 0)


class _State(NamedTuple):
    # The last increment of each token.
    increment: State
    moving: Bool[Array, "*batch tokens"]
    remaining: Float[Array, ""]
    evaluations: EvaluationCount


class _Stopping(AbstractScheme):
    """A scheme that makes steps for tokens that have not stopped."""

    solver: diffrax.AbstractSolver
    exit: AbstractExit
    read_out: Callable[[Array], PyTree[Array]]
    weights: Float[Array, "*domains tokens"]
    # The evaluations of a step, and the number of steps.
    cost: float
    steps: int

    def start(self, field: StepField, u: Array) -> _State:
        tokens = u.shape[:-1]
        evaluations = EvaluationCount(jnp.zeros(tokens, u.dtype))
        remaining = jnp.asarray(self.steps, u.dtype)
        return _State(jnp.full_like(u, jnp.nan), jnp.ones(tokens, bool), remaining, evaluations)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        moving = state.moving
        state = state._replace(remaining=state.remaining - 1)
        # The next states of stopped tokens.
        rest = u + state.increment if self.exit.order else u

        def advance():
            step = field.first_step(self.solver, u)
            y1 = jnp.where(moving[..., None], step.y1, rest)
            increment = jnp.where(moving[..., None], step.y1 - u, state.increment)
            progress = Progress(y1, increment, state.increment, state.remaining, self.read_out)
            below = self.exit.each(progress, self.weights) < self.exit.tolerance
            evaluations = state.evaluations.plus(jnp.where(moving, self.cost, 0.0))
            result = first_failure(finite(0.0), step.result)
            return y1, _State(increment, moving & ~below, state.remaining, evaluations), result

        y1, state, result = lax.cond(
            jnp.any(moving), advance, lambda: (rest, state, finite(0.0))
        )
        return Step.between(u, y1, state=state, result=result)


def march_until(
    steps: Steps,
    start: Start,
    scan: Callable,
    exit: AbstractExit,
    read_out: Callable[[Array], PyTree[Array]],
) -> Trajectory:
    """Marches tokens until they stop. Raises `InputError` if a step needs more than a state."""
    where = f"solve: exit={type(exit).__name__}(…)"
    start.output.require_interval_ends(f"exit={type(exit).__name__}(…)")
    sets = parts(eqx.filter_eval_shape(steps.equation.constraint, 0.0), AbstractConstraint)
    name = next((type(x).__name__ for x in sets if not isinstance(x, Free)), None)
    if exit.order and name is not None:
        raise InputError(f"{where}: a stopped token leaves the {name}; set order=0.")
    if steps.cost is None:
        raise InputError(
            f"{where}: the evaluations of {steps.name} depend on the state; use RK4()."
        )
    t0, t1, *_ = steps.offsets
    field = StepField(steps.equation.terms_of(0), t0, t1, start.args)
    start_inside(where, steps.scheme, field, start.u0, "LieTrotter() or RK4()")
    weights = steps.equation.domain.weights
    if weights is None:
        weights = jnp.ones(start.u0.shape[-2], start.u0.dtype)
    total = steps.steps_per_interval * len(steps.indices)
    solver = _Stopping(steps.solver, exit, read_out, weights, steps.cost.first, total)
    return march(replace(steps, solver=solver, cost=None), start, scan)
