"""Base class of the schemes with momentum: Lie–Trotter over a state and its velocity."""

import abc
from typing import ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...equation import AbstractConstraint, Depth
from ...errors import InputError
from ..base.coefficients import AbstractCoefficient
from ..base.scheme import AbstractFieldScheme, operator_terms
from ..base.step import Step, StepField, Terms, U


class Kick(NamedTuple):
    """The coefficients of one sub-step: the velocity is kept times `damping`, the field
    enters times `strength`, taken `lookahead` velocities ahead of the state."""

    damping: Array
    strength: Array
    lookahead: Depth


class InitialVelocity(eqx.Module):
    """The velocity from which schemes with momentum start, where that is not zero: `args` of
    a solve."""

    velocity: Float[Array, "*batch tokens features"]

    def starting(self, u: Array) -> Array:
        """The velocity of a state.

        **Raises:** `InputError` where it has another shape.
        """
        if self.velocity.shape != u.shape:
            raise InputError(
                f"InitialVelocity.velocity has shape {self.velocity.shape}; the state has "
                f"{u.shape}, and so must it."
            )
        return self.velocity.astype(u.dtype)


class AbstractMomentum(AbstractFieldScheme):
    """A scheme that gives the state a velocity v and treats one operator after the other,

        v ← P(damping v + strength A_i(u + lookahead v)),   u ← u + h v.

    The velocity starts at zero, or at that of `args=InitialVelocity(…)`, and is kept from step
    to step in the solver state.
    """

    # P, applied to the velocity after every kick.
    normalization: eqx.AbstractVar[AbstractConstraint]

    term_structure: ClassVar = diffrax.MultiTerm
    # Its equation is of second order in depth.
    consistent: ClassVar[bool] = False

    @abc.abstractmethod
    def kick(self, index: int, t0: Depth, t1: Depth) -> Kick:
        """The coefficients of the sub-step of operator `index` over `[t0, t1]`."""

    def order(self, terms: Terms) -> int:
        return 1

    def start(self, field: StepField, u: U) -> U:
        number = len(operator_terms(self, field.terms))
        for name, coefficient in vars(self).items():
            if isinstance(coefficient, AbstractCoefficient):
                coefficient.check_operators(f"{type(self).__name__}.{name}", number)
        if isinstance(field.args, InitialVelocity):
            return field.args.starting(u)
        return jax.tree.map(jnp.zeros_like, u)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        h, y1, v = field.h, u, state
        for index, term in enumerate(operator_terms(self, field.terms)):
            kick = self.kick(index, field.t0, field.t1)
            ahead = jax.tree.map(lambda y, v, k=kick: y + k.lookahead * v, y1, v)
            rate = field.with_terms(term).rate(0, ahead)
            v = jax.tree.map(lambda v, f, k=kick: k.damping * v + k.strength * f, v, rate)
            v = jax.tree.map(self.normalization.project, v)
            y1 = jax.tree.map(lambda y, v: y + h * v, y1, v)
        y1, v = (jax.tree.map(lambda x, like: x.astype(like.dtype), new, u) for new in (y1, v))
        return Step.between(u, y1, state=v)


def decay(momentum: Array, gain: Array, h: Depth) -> tuple[Array, Array]:
    """The damping `β^h` and the strength `γ (1 - β^h)/(1 - β)` of a sub-step of length h:
    at h = 1 they are β and γ, and as h → 0 the velocity obeys

        v_t = -r v + γ r/(1 - β) A(u),   r = -log β.
    """
    # With β = 0 the power is 0 for every h > 0; its derivative there must stay finite.
    safe = jnp.where(momentum > 0, momentum, 1)
    damping = jnp.where(momentum > 0, safe**h, 0)
    return damping, gain * (1 - damping) / (1 - momentum)
