"""What the schemes with momentum share: Lie–Trotter over a state and its velocity."""

import abc
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...equation import AbstractConstraint, Depth
from ...errors import InputError
from ..base.scheme import AbstractScheme


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class Kick(NamedTuple):
    """The coefficients of one sub-step: the velocity is kept times `damping`, the field
    enters times `strength`, taken `lookahead` velocities ahead of the state."""

    damping: Array
    strength: Array
    lookahead: Depth


class AbstractMomentum(AbstractScheme):
    """A scheme that gives the state a velocity v and treats one operator after the other,

        v ← P(damping v + strength A_i(u + lookahead v)),   u ← u + h v.

    The velocity starts at zero and is kept from step to step in the solver state.
    """

    # P, applied to the velocity after every kick.
    normalization: AbstractVar[AbstractConstraint]

    term_structure: ClassVar = diffrax.MultiTerm

    @abc.abstractmethod
    def kick(self, index: int, t0: Depth, t1: Depth) -> Kick:
        """The coefficients of the sub-step of operator `index` over `[t0, t1]`."""

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 1

    def init(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> PyTree[Array]:
        if not isinstance(terms, diffrax.MultiTerm):
            raise InputError(
                f"{type(self).__name__} treats one operator after the other, but was given "
                f"{type(terms).__name__}; pass equation.terms or a diffrax.MultiTerm."
            )
        return jax.tree.map(jnp.zeros_like, y0)

    def step(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
        solver_state: PyTree[Array],
        made_jump: PyTree,
    ) -> tuple:
        h = t1 - t0
        u, v = y0, solver_state
        for index, term in enumerate(terms.terms):
            kick = self.kick(index, t0, t1)
            ahead = jax.tree.map(lambda u, v, k=kick: u + k.lookahead * v, u, v)
            rate = term.vf_prod(t0, ahead, args, term.contr(0.0, 1.0))
            v = jax.tree.map(lambda v, f, k=kick: k.damping * v + k.strength * f, v, rate)
            v = jax.tree.map(self.normalization.project, v)
            u = jax.tree.map(lambda u, v: u + h * v, u, v)
        y1, v = (jax.tree.map(lambda x, like: x.astype(like.dtype), new, y0) for new in (u, v))
        return y1, None, dict(y0=y0, y1=y1), v, diffrax.RESULTS.successful


def decay(momentum: Array, gain: Array, h: Depth) -> tuple[Array, Array]:
    """The damping `β^h` and the strength `γ (1 - β^h)/(1 - β)` of a sub-step of length h:
    at h = 1 they are β and γ, and as h → 0 the velocity obeys

        v_t = -r v + γ r/(1 - β) A(u),   r = -log β.
    """
    # With β = 0 the power is 0 for every h > 0; its derivative there must stay finite.
    safe = jnp.where(momentum > 0, momentum, 1)
    damping = jnp.where(momentum > 0, safe**h, 0)
    return damping, gain * (1 - damping) / (1 - momentum)
