import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ...arguments import Fraction
from ..base.random_scheme import AbstractRandomScheme
from ..base.step import Step, StepField, Terms


class Before(eqx.Module):
    """The state before, and the number of steps made."""

    u: Float[Array, "*batch tokens features"]
    step: Int[Array, ""]


class Bidirectional(AbstractRandomScheme):
    """Bidirectional integration approximation: a two-step method with a random coefficient,

        u_{n+1} = γ u_{n-1} + (1 - γ) u_n + (1 + γ) h F(t_n, u_n),   γ = ± amplitude,

    the sign drawn for each step and sample in training; the first step, and without a key all
    of them, have γ = 0, which is `Euler()`. First order for each draw. As published it is
    `Residual(Bidirectional())`, of whole blocks. Reference: Zhang et al., arXiv 2407.09093,
    which also rounds the state, so that the steps can be undone to the bit; that is not done
    here.

    **Arguments:**

    - `amplitude`: of γ, in [0, 1).
    """

    amplitude: Fraction = eqx.field(static=True, default=0.5)
    key: PRNGKeyArray | None = None

    def order(self, terms: Terms) -> int:
        return 1

    def start(self, field: StepField, u: Array) -> Before | None:
        return None if self.key is None else Before(u, jnp.array(0))

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        if self.key is None:
            return Step.between(u, (u + field(0, u)).astype(u.dtype))
        gamma = self._gamma(self.key, u, state.step)
        y1 = gamma * state.u + (1 - gamma) * u + (1 + gamma) * field(0, u)
        return Step.between(u, y1.astype(u.dtype), state=Before(u, state.step + 1))

    def _gamma(
        self, key: PRNGKeyArray, u: Array, step: Int[Array, ""]
    ) -> Float[Array, "*samples one one"]:
        """For each sample."""
        key = jax.random.fold_in(key, step)
        sign = jax.random.rademacher(key, (*u.shape[:-2], 1, 1), u.dtype)
        return jnp.where(step > 0, self.amplitude * sign, 0)
