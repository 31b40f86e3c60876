"""A two-step method with a random coefficient."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from ide_transformer.arguments import Fraction, checked
from ide_transformer.solvers import AbstractScheme, Step, StepField


@checked
class Bidirectional(AbstractScheme):
    """Bidirectional integration approximation: a two-step method with a random coefficient,

        u_{n+1} = γ u_{n-1} + (1 - γ) u_n + (1 + γ) h F(t_n, u_n),
        γ = ± amplitude,   0 ≤ amplitude < 1,

    with a random sign for each step and sample in training. In the first step and without a key
    γ = 0, which is `Euler()`. It has order one for each draw. The paper applies it to whole
    blocks, `Residual(Bidirectional())`, and also rounds the state to invert steps exactly.
    Reference: Zhang et al., arXiv 2407.09093.
    """

    amplitude: Fraction = eqx.field(static=True, default=0.5)
    key: PRNGKeyArray | None = None

    random: ClassVar[bool] = True
    fixed_order: ClassVar[int | None] = 1

    def start(self, field: StepField, u: Array) -> tuple[Array, Array] | None:
        """The state before and the number of steps so far."""
        return None if self.key is None else (u, jnp.array(0))

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        if self.key is None:
            return Step.between(u, (u + field(0, u)).astype(u.dtype))
        before, num_steps = state
        key = jax.random.fold_in(self.key, num_steps)
        sign = jax.random.rademacher(key, (*u.shape[:-2], 1, 1), u.dtype)
        gamma = jnp.where(num_steps > 0, self.amplitude * sign, 0)
        y1 = gamma * before + (1 - gamma) * u + (1 + gamma) * field(0, u)
        return Step.between(u, y1.astype(u.dtype), state=(u, num_steps + 1))
