"""How the gradient of a solve is computed: what is kept on the way, what is recomputed."""

import abc
from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
from jax import lax
from jaxtyping import PyTree

from ...equation import RESIDUALS


# Saves the products of states with weights and the means of attention, which on a processor
# whose backward pass is bound by memory traffic is both smaller and faster than keeping
# everything.
PRODUCTS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(*RESIDUALS),
)


class AbstractGradient(eqx.Module):
    """A gradient mode. Each gives the gradient of the discrete solution."""

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    @abc.abstractmethod
    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        """`jax.lax.scan` over the intervals, keeping what this mode keeps."""

    @abc.abstractmethod
    def adjoint(self) -> diffrax.AbstractAdjoint:
        """The diffrax adjoint for adaptive steps inside one interval."""


class Direct(AbstractGradient):
    """Keep every intermediate value. Adaptive solves then also allow forward mode."""

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        return lax.scan(interval, carry, xs)

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return diffrax.DirectAdjoint()


class Recompute(AbstractGradient):
    """Keep one state for each interval and what `policy` saves inside; recompute the rest.

    **Arguments:**

    - `policy`: one of `jax.checkpoint_policies`; the default saves the products of states
      with weights and the means of attention, `None` saves nothing inside: less memory, one
      solve more.
    """

    policy: Callable | None = eqx.field(static=True, default=PRODUCTS)

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        body = jax.checkpoint(interval, policy=self.policy, prevent_cse=False)
        return lax.scan(body, carry, xs)

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return diffrax.RecursiveCheckpointAdjoint()
