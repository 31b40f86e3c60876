"""A published way to keep a loop, one block at all depths, stable when it takes more steps than
in training: noise at its start and in its steps.

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
from ide_transformer.errors import InputError
from ide_transformer.solvers import (
    AbstractScheme,
    LieTrotter,
    Projected,
    Step,
    StepField,
    projected,
)


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
