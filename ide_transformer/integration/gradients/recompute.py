from collections.abc import Callable

import equinox as eqx
import jax
from jax import lax
from jaxtyping import PyTree

from .gradient import AbstractGradient, save_products


class Recompute(AbstractGradient):
    """Keep one state for each interval and the values that `policy` saves inside; recompute
    the rest.

    **Arguments:**

    - `policy`: one of `jax.checkpoint_policies`; the default saves the products of states
      with weights and the means of attention, `None` saves nothing inside: less memory, one
      solve more.
    """

    policy: Callable | None = eqx.field(static=True, default=save_products)

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        body = jax.checkpoint(interval, policy=self.policy, prevent_cse=False)
        return lax.scan(body, carry, xs)
