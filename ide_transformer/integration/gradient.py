"""How the gradient of a solve is computed: what is kept on the way, what is recomputed."""

import abc
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax


class AbstractGradient(eqx.Module):
    """A gradient mode. Each gives the gradient of the discrete solution."""

    @abc.abstractmethod
    def wrap(self, interval: Callable) -> Callable:
        """The solve of one interval, made to keep what this mode keeps."""

    @abc.abstractmethod
    def adjoint(self) -> diffrax.AbstractAdjoint:
        """The diffrax adjoint for adaptive steps inside one interval."""


class Direct(AbstractGradient):
    """Keep every intermediate value. Adaptive solves then also allow forward mode."""

    def wrap(self, interval: Callable) -> Callable:
        return interval

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return diffrax.DirectAdjoint()


class Checkpoint(AbstractGradient):
    """Keep one state for each interval and what `policy` saves inside; recompute the rest.

    The default saves the products of states with weights: on a processor whose backward
    pass is bound by memory traffic that is both smaller and faster than `Direct`.

    **Arguments:**

    - `policy`: one of `jax.checkpoint_policies`; `None` saves nothing inside.
    """

    policy: Callable | None = eqx.field(
        static=True, default=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    )

    def wrap(self, interval: Callable) -> Callable:
        return jax.checkpoint(interval, policy=self.policy, prevent_cse=False)

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return diffrax.RecursiveCheckpointAdjoint()
