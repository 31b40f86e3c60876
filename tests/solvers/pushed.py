"""A scheme of a user that checks its solve, starts from a velocity, and draws and learns."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

import ide_transformer as ide
from ide_transformer import contrib, solvers


class Pushed(ide.AbstractScheme):
    """`u_{n+1} = u_n + h F(t_n, u_n) + h s v`, v the initial velocity or, with a key, noise.
    It makes an even number of steps."""

    strength: Array = eqx.field(converter=jnp.asarray, default=0.5)
    key: PRNGKeyArray | None = None

    random: ClassVar[bool] = True
    starts_from: ClassVar[tuple[type, ...]] = (contrib.InitialVelocity,)

    def order(self, terms):
        return 1

    def check(self, plan):
        if plan.steps is None or plan.steps % 2:
            raise ide.InputError(f"Pushed: an odd number of steps, {plan}; make an even one.")

    def learned(self):
        return {"push": 2 * self.strength}

    def start(self, field, u):
        if self.key is not None:
            return jax.random.normal(self.key, u.shape, u.dtype)
        return field.args.velocity if field.args else jnp.zeros_like(u)

    def make_step(self, field, u, state, made_jump):
        y1 = u + field(0, u) + field.h * self.strength * state
        return solvers.Step.between(u, y1, state=state)
