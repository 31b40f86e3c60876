"""Schemes with momentum: Lie–Trotter over a state and its velocity."""

import abc
from typing import ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..equation import AbstractConstraint, Depth, Free
from ..errors import InputError
from .coefficients import AbstractCoefficient, Numbers, Positive, UnitInterval
from .scheme import AbstractFieldScheme, Step, StepField, Terms, U


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
        """The velocity of a state, in its dtype."""
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

    # P.
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
        number = len(field.of_operators(self))
        for name, coefficient in vars(self).items():
            if isinstance(coefficient, AbstractCoefficient):
                coefficient.check_operators(f"{type(self).__name__}.{name}", number)
        if isinstance(field.args, InitialVelocity):
            return field.args.starting(u)
        return jax.tree.map(jnp.zeros_like, u)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        h, y1, v = field.h, u, state
        for index, one in enumerate(field.of_operators(self)):
            kick = self.kick(index, field.t0, field.t1)
            ahead = jax.tree.map(lambda y, v, k=kick: y + k.lookahead * v, y1, v)
            rate = one.rate(0, ahead)
            v = jax.tree.map(lambda v, f, k=kick: k.damping * v + k.strength * f, v, rate)
            v = jax.tree.map(self.normalization.project, v)
            y1 = jax.tree.map(lambda y, v: y + h * v, y1, v)
        y1, v = (jax.tree.map(lambda x, like: x.astype(like.dtype), new, u) for new in (y1, v))
        return Step.between(u, y1, state=v)


class AbstractDecaying(AbstractMomentum):
    """A velocity that is kept times β in a unit of depth, the field taken μ velocities ahead.

    Shorter steps use `β^h`, `γ (1 - β^h)/(1 - β)` and `μ h`.
    """

    momentum: eqx.AbstractVar[UnitInterval]
    gain: eqx.AbstractVar[Positive]

    def lookahead_at(self, t: Depth, index: int) -> Depth:
        """μ at a depth, for operator `index`."""
        return 0.0

    def kick(self, index: int, t0: Depth, t1: Depth) -> Kick:
        h, middle = t1 - t0, t0 + 0.5 * (t1 - t0)
        momentum, gain = self.momentum(middle, index), self.gain(middle, index)
        # With β = 0 the power is 0 for every h > 0; its derivative there must stay finite.
        safe = jnp.where(momentum > 0, momentum, 1)
        damping = jnp.where(momentum > 0, safe**h, 0)
        strength = gain * (1 - damping) / (1 - momentum)
        return Kick(damping, strength, h * self.lookahead_at(middle, index))


class HeavyBall(AbstractDecaying):
    """Polyak's heavy ball by Lie–Trotter over a state and its velocity: for each operator
    in turn, at h = 1,

        v ← P(β v + γ A_i(u)),   u ← u + v.

    β and γ are learned, but for a β of 0, which stays 0. For shorter steps and the limit, see
    `Nesterov`. First order. Reference: Polyak, USSR Comput. Math. Math. Phys. 4 (1964); for
    Transformers, arXiv 2601.23236.

    **Arguments:**

    - `momentum`: β in [0, 1), a number, `[operators]` or `[layers, operators]`.
    - `gain`: γ > 0, likewise.
    - `normalization`: P.

    **Raises:** `InputError` for a coefficient out of range, or for another number of operators.
    """

    momentum: UnitInterval
    gain: Positive
    normalization: AbstractConstraint

    def __init__(
        self,
        momentum: Numbers = 0.9,
        gain: Numbers = 1.0,
        normalization: AbstractConstraint = Free(),
    ):
        self.momentum = UnitInterval(momentum, "momentum")
        self.gain = Positive(gain, "gain")
        self.normalization = normalization


class Nesterov(AbstractDecaying):
    """Nesterov's acceleration by Lie–Trotter over a state and its velocity: for each
    operator in turn, at h = 1,

        v ← P(β v + γ A_i(u + μ v)),   u ← u + v.

    β, γ and μ are learned, but for a β or μ of 0, which stays 0. Shorter steps use `β^h`,
    `γ (1 - β^h)/(1 - β)` and `μ h`, which makes it first order for

        u_t = k v,   v_t = -k r v + γ r/(1 - β) Σ_i A_i(u),   r = -log β,

    k the number of operators, where P is `Free`. Reference: YuriiFormer, arXiv 2601.23236,
    which takes for P a layer norm.

    **Arguments:**

    - `momentum`: β in [0, 1), a number, `[operators]` or `[layers, operators]`.
    - `lookahead`: μ in [0, 1), likewise.
    - `gain`: γ > 0, likewise.
    - `normalization`: P.

    **Raises:** `InputError` for a coefficient out of range, or for another number of operators.
    """

    momentum: UnitInterval
    lookahead: UnitInterval
    gain: Positive
    normalization: AbstractConstraint

    def __init__(
        self,
        momentum: Numbers = 0.9,
        lookahead: Numbers = 0.9,
        gain: Numbers = 1.0,
        normalization: AbstractConstraint = Free(),
    ):
        self.momentum = UnitInterval(momentum, "momentum")
        self.lookahead = UnitInterval(lookahead, "lookahead")
        self.gain = Positive(gain, "gain")
        self.normalization = normalization

    def lookahead_at(self, t: Depth, index: int) -> Depth:
        return self.lookahead(t, index)


class PresymplecticEuler(AbstractMomentum):
    """Presymplectic Euler for a damped Hamiltonian system, kick, damp, then drift; for each
    operator in turn

        v ← P(σ (v + h A_i(u))),   u ← u + h v,   σ = exp(-[η(t + h) - η(t)]),

        η(t) = c_log log(1 + t) + c_lin t,

    c_log and c_lin learned. First order for `u_t = k v, v_t = -k η' v + Σ_i A_i(u)`, k the
    number of operators, where P is `Free`. Reference: SympFormer, arXiv 2603.16535, whose
    kinetic energy also depends on the state; here it is `|v|²/2`.

    **Arguments:**

    - `logarithmic`: c_log > 0, a number, `[operators]` or `[layers, operators]`.
    - `linear`: c_lin > 0, likewise.
    - `normalization`: P.

    **Raises:** `InputError` for a coefficient out of range, or for another number of operators.
    """

    logarithmic: Positive
    linear: Positive
    normalization: AbstractConstraint

    def __init__(
        self,
        logarithmic: Numbers = 3.0,
        linear: Numbers = 1e-4,
        normalization: AbstractConstraint = Free(),
    ):
        self.logarithmic = Positive(logarithmic, "logarithmic")
        self.linear = Positive(linear, "linear")
        self.normalization = normalization

    def kick(self, index: int, t0: Depth, t1: Depth) -> Kick:
        h, middle = t1 - t0, t0 + 0.5 * (t1 - t0)
        growth = self.logarithmic(middle, index) * (jnp.log1p(t1) - jnp.log1p(t0))
        damping = jnp.exp(-growth - self.linear(middle, index) * h)
        return Kick(damping, damping * h, 0.0)
