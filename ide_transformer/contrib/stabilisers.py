"""Published ways to keep a loop, one block at all depths, stable when it takes more steps than
in training. A random number of steps is a schedule with several horizons:

training:
  schedule: [{meshes: [{horizon: 8}, {horizon: 12}, {horizon: 16}], weights: [1, 2, 1]}]
  costs: {progressive: 0.5, jacobian_norm: 0.1}
solver: {kind: noisy_steps, options: {initial: 1.0, noise: 0.01}}
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ide_transformer.arguments import NonNegativeFloat, PositiveInt, checked
from ide_transformer.dynamics import AbstractCost, March, Path, over_interval, step_ends
from ide_transformer.errors import InputError
from ide_transformer.integration import AbstractGradient
from ide_transformer.solvers import (
    AbstractScheme,
    LieTrotter,
    Projected,
    Step,
    StepField,
    projected,
)


class Progressive(AbstractCost):
    """What the progressive loss adds: with weight α the loss L(u(T)) becomes

        (1-α) L(u_m) + α L(u_{n+k}),   n uniform in 0, …, m-1,   k uniform in 1, …, m-n,

    drawn for each step of training, where u_m = u(T) is the state after all m intervals and the
    gradient of u_{n+k} goes back k intervals only: u_n is fixed. For n = 0 it also goes to the
    embedding. So the block learns to go on from any state. The cost itself is the difference
    `L(u_{n+k}) - L(u_m)`. It takes another solve, which `field_evaluations` does not count.

    Reference: Bansal et al., NeurIPS 2022, arXiv 2202.05826.
    """

    of_targets: ClassVar[bool] = True

    def __call__(self, path: Path) -> Float[Array, ""]:
        if path.loss is None:
            raise InputError("Progressive: a path without targets; use it as a training cost.")
        n, k = self.drawn(path.key, len(path.states) - 1)
        mode = _FixedState(path.model.gradient, n)
        model = dataclasses.replace(path.model, gradient=mode)
        states = Path.of(model, path.inputs, path.key).states
        return path.loss(states[n + k]) - path.loss(path.states[-1])

    def drawn(
        self, key: PRNGKeyArray | None, intervals: int
    ) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """n and k for the `key` of a solve."""
        first, second = jax.random.split(_own_key(key, 3))
        n = jax.random.randint(first, (), 0, intervals)
        return n, jax.random.randint(second, (), 1, intervals - n + 1)


class _FixedState(AbstractGradient):
    """The gradient of another mode, without the intervals before number `interval`."""

    mode: AbstractGradient
    interval: Int[Array, ""]

    configurable: ClassVar[bool] = False

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return self.mode.adjoint()

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        def from_fixed(carry, inputs):
            index, x = inputs
            fixed = (index == self.interval) & (index > 0)
            arrays, rest = eqx.partition(carry, eqx.is_inexact_array)
            arrays = jax.tree.map(lambda y: jnp.where(fixed, lax.stop_gradient(y), y), arrays)
            return interval(eqx.combine(arrays, rest), x)

        indices = jnp.arange(len(jax.tree.leaves(xs)[0]))
        return self.mode.scan(from_fixed, carry, (indices, xs))


class JacobianNorm(AbstractCost):
    """The squared Frobenius norm of the Jacobian of a step at the end of the solve,

        ‖J‖²_F / N = E |J v|² / N,   v ~ N(0, 1),   J = ∂Φ/∂u at u(T),

    with the map Φ of the last interval and N the number of entries of the state. If Φ
    contracts, further steps of a loop come to rest. The expectation is a mean over some v,
    drawn again in each step of training. u(T) itself is not differentiated, as in the
    references, and Φ has no dropout.

    References: Bai, Koltun, Kolter, ICML 2021, arXiv 2106.14342. Yang et al., ICML 2026, arXiv
    2605.26733, estimate a spectral radius by one power iteration from a random v of norm 1,
    which has this expectation; their λ = 0.1 is a weight of 0.11, with random horizons.

    **Arguments:** `probes`, the number of v; each takes two evaluations of the field.
    """

    probes: PositiveInt = eqx.field(static=True, default=1)

    def __call__(self, path: Path) -> Float[Array, ""]:
        march = March.of("JacobianNorm", path.model, path.inputs)
        last = path.model.layers - 1
        terms = march.equation.terms_of(last)
        ends = step_ends(march.equation, last * path.h, march.steps)
        u = lax.stop_gradient(path.states[-1])

        def size(key):
            v = jax.random.normal(key, u.shape, u.dtype)
            step = (lambda u: over_interval(march.solver, terms, ends, u), (u,), (v,))
            return jnp.mean(jax.jvp(*step)[1] ** 2)

        keys = jax.random.split(_own_key(path.key, 4), self.probes)
        return jnp.mean(lax.map(size, keys))


def _own_key(key: PRNGKeyArray | None, number: int) -> PRNGKeyArray:
    """A key that the solve with `key` does not use, which has numbers 0 to 2; without one
    always the same."""
    return jax.random.key(number) if key is None else jax.random.fold_in(key, number)


@checked
class NoisySteps(AbstractScheme):
    """A scheme that starts from noise and adds noise to each step,

        u_0 = initial ξ_0,   u_{n+1} = Φ_h(u_n) + noise √h ξ_{n+1},   ξ ~ N(0, 1),

    Φ_h a step of `solver`; on a constraint the state is then projected. The input enters by
    `Injection` or `Relaxation` alone, so the loop learns to find its answer from anywhere. With
    h = 1 these are the starts and the noise of equilibrium reasoners. Without a key, as in
    evaluations, there is no noise, and all tokens start from the same ξ_0 `[features]`; in the
    reference these are random too. At depth 0 a solution still has the embedded input.

    Reference: Huang, Geng, Kolter, ICML 2026, arXiv 2605.21488, with 1 and 0.01.

    **Arguments:**

    - `solver`: a scheme without memory.
    - `initial`, `noise`: standard deviations. With `initial` 0 the solve starts from the input.
    """

    solver: diffrax.AbstractSolver = LieTrotter()
    initial: NonNegativeFloat = eqx.field(static=True, default=0.0)
    noise: NonNegativeFloat = eqx.field(static=True, default=0.0)
    key: PRNGKeyArray | None = None

    random: ClassVar[bool] = True

    @property
    def term_structure(self) -> PyTree:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.solver.term_structure

    def order(self, terms: PyTree) -> int | None:
        return self.solver.order(terms)

    def projected(self) -> Projected:
        return Projected(eqx.tree_at(lambda x: x.solver, self, projected(self.solver)))

    def start(self, field: StepField, u: Array) -> None:
        memory = jax.tree.leaves(eqx.filter_eval_shape(field.start, self.solver, u))
        if memory and not isinstance(self.solver, diffrax.AbstractRungeKutta):
            name = type(self.solver).__name__
            raise InputError(f"NoisySteps: {name} uses earlier steps; take lie_trotter.")

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        first, later = jax.random.split(jax.random.key(0) if self.key is None else self.key)
        before = u
        if self.initial:
            shape = u.shape[-1:] if self.key is None else u.shape
            drawn = self.initial * jax.random.normal(first, shape, u.dtype)
            u = jnp.where(field.t0 == 0, jnp.broadcast_to(drawn, u.shape), u)
        # A first step, since noise was added to a stage that is reused.
        step = field.first_step(self.solver, u)
        y1 = step.y1
        if self.noise and self.key is not None:
            # The depth tells the steps apart.
            depth = lax.bitcast_convert_type(jnp.asarray(field.t0, "float32"), jnp.uint32)
            drawn = jax.random.normal(jax.random.fold_in(later, depth), u.shape, u.dtype)
            y1 += self.noise * jnp.sqrt(jnp.abs(field.h)).astype(u.dtype) * drawn
        return Step.between(before, y1, error=step.error, result=step.result)
