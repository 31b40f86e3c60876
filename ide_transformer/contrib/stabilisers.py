"""Noise in a loop (one block at all depths), which keeps it stable for more steps than in
training.

solver: {kind: noisy_steps, options: {initial: 1.0, noise: 0.01}}
"""

from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray, PyTree

from ide_transformer.arguments import NonNegativeFloat, checked
from ide_transformer.solvers import (
    AbstractScheme,
    LieTrotter,
    Projected,
    Step,
    StepField,
    projected,
    start_inside,
)


@checked
class NoisySteps(AbstractScheme):
    """A scheme that starts from noise and adds noise to each step,

        u_0 = initial ξ_0,   u_{n+1} = Φ_h(u_n) + noise √h ξ_{n+1},   ξ ~ N(0, 1),

    where Φ_h is a step of `solver`. On a constraint the noisy state is projected. The input
    enters only through `Injection` or `Relaxation`, so the loop learns to find its answer from
    anywhere. A solution saved at depth 0 is still the embedded input.

    With h = 1 this is the noise of equilibrium reasoners. Without a key, as in evaluations,
    steps add no noise and all tokens start from one fixed ξ_0 `[features]`; in the reference
    both stay random. Reference: Huang, Geng, Kolter, ICML 2026, arXiv 2605.21488, with
    `initial=1` and `noise=0.01`.

    **Arguments:**

    - `solver`: a scheme that does not use earlier steps.
    - `initial`, `noise`: standard deviations. With `initial=0` the solve starts from the input.
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
        start_inside("NoisySteps", self.solver, field, u, "LieTrotter()")

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        first, later = jax.random.split(jax.random.key(0) if self.key is None else self.key)
        before = u
        if self.initial:
            shape = u.shape[-1:] if self.key is None else u.shape
            start = self.initial * jax.random.normal(first, shape, u.dtype)
            u = jnp.where(field.t0 == 0, jnp.broadcast_to(start, u.shape), u)
        # Each step is a first step: a stage reused from the last one would lack its noise.
        step = field.first_step(self.solver, u)
        y1 = step.y1
        if self.noise and self.key is not None:
            # The depth gives each step its own key.
            depth = lax.bitcast_convert_type(jnp.asarray(field.t0, "float32"), jnp.uint32)
            noise = jax.random.normal(jax.random.fold_in(later, depth), u.shape, u.dtype)
            y1 += self.noise * jnp.sqrt(jnp.abs(field.h)).astype(u.dtype) * noise
        return Step.between(before, y1, error=step.error, result=step.result)
