"""Schemes for whole blocks, as residual or as velocity, and the paper's splitting."""

from typing import ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..arguments import checked
from ..equation import Depth, Nonnegative, operator_fields, slow_terms, without_constraint
from ..errors import InputError
from .runge_kutta import RK4
from .scheme import AbstractOneStep, StepField, Terms, single_step
from .splitting import AbstractSplitting, LieTrotter
from .wrapper import AbstractTransparentWrapper


class AbstractOnBlocks(AbstractTransparentWrapper):
    """An unsplit solver for a field of whole blocks."""

    block: eqx.AbstractVar[AbstractSplitting]
    # Whether the field is `B_t(u) - u` or `B_t(u)`.
    residual: eqx.AbstractClassVar[bool]

    # Blocks have length 1 at all step sizes.
    consistent: ClassVar[bool] = False
    term_structure: ClassVar[type] = diffrax.MultiTerm

    def inner_terms(self, terms: diffrax.MultiTerm) -> diffrax.ODETerm:
        return diffrax.ODETerm(_BlockField(self.block, terms, self.residual))

    def limit(self) -> diffrax.AbstractSolver:
        return eqx.tree_at(lambda s: s.solver, self, diffrax.Dopri8())


class _BlockField(eqx.Module):
    """`B_t(u) - u` or `B_t(u)`, tangential to the constraint."""

    block: AbstractSplitting
    terms: Terms
    residual: bool = eqx.field(static=True)

    def __call__(self, t: Depth, u: Array, args: PyTree) -> Array:
        frozen = slow_terms(without_constraint(self.terms), t, 0.0)
        start = jnp.zeros((), u.dtype)
        end = jnp.ones((), u.dtype)
        rate = single_step(self.block, frozen, start, end, u, args)
        rate = rate - u if self.residual else rate
        return operator_fields(self.terms)[-1].along(t, u, rate)


@checked
class Residual(AbstractOnBlocks):
    """A scheme for the residual of whole blocks: `solver` on

        u_t = B_t(u) - u,   B_t one step of length 1 of `block` with weights at depth t.

    `Euler` with h = 1 gives the block itself, `RK4` or `GatedRK2` the ODE Transformer. On a
    constraint the state is projected after each step, but inside a block only by
    `LieTrotter(Projected(…))`. Reference: Li et al., arXiv 2203.09176.

    **Arguments:** `solver`, any unsplit scheme; `block`, a splitting.
    """

    solver: diffrax.AbstractSolver = RK4()
    block: AbstractSplitting = LieTrotter()

    residual: ClassVar[bool] = True


@checked
class Velocity(AbstractOnBlocks):
    """A scheme with whole blocks as velocity: `solver` on

        u_t = B_t(u),   B_t one step of length 1 of `block` with weights at depth t.

    It is the field of the optimal-transport Transformer, whose loss also has the transport cost
    ∫ |u_t|² dt. Reference: Kan, Li, Osher, arXiv 2501.18793.

    **Arguments:** `solver`, any unsplit scheme; `block`, a splitting.
    """

    solver: diffrax.AbstractSolver = diffrax.Euler()
    block: AbstractSplitting = LieTrotter()

    residual: ClassVar[bool] = False


class AbstractPaperSplitting(AbstractOneStep):
    """The 4 + J sub-steps of the paper for an attention and J integrals over features,

        u_1 = u_0 + h ⟨γ, V⟩                     attention, explicit
        u_2 = P_S1(u_1)
        u_{2+j} = sub-step j of the feed-forward, from u_{1+j},   j = 1 … J
        u_{3+J} = (u_2 + u_{2+J}) / 2            relaxation
        u_{4+J} = P_S1(u_{3+J}),

    with the equation's constraint S1. The block must be an attention followed by J feature
    integrals.
    """

    term_structure: ClassVar = diffrax.MultiTerm

    def projected(self) -> "AbstractPaperSplitting":
        # Sub-steps include projections.
        return self

    def start(self, field: StepField, u: Array) -> None:
        num_terms = len(getattr(field.terms, "terms", (field.terms,)))
        if num_terms < 2 or len(operator_fields(field.terms)) != num_terms:
            raise InputError(
                f"{type(self).__name__} needs the terms of an equation with the block "
                f"(Attention(…), FeatureIntegral(…), …), got {num_terms} terms."
            )

    def advance(self, field: StepField, u: Array) -> Array:
        terms = without_constraint(field.terms).terms
        attention, *integrals = (field.with_terms(term) for term in terms)
        constraints = [x.constraint(field.t1) for x in operator_fields(field.terms)]
        attended = fed = constraints[0].project(u + attention(0, u))
        for integral in integrals:
            increment = integral(0, fed)
            if self.consistent:
                # The relaxation halves this.
                fed = fed + 2 * increment
                continue
            fed = fed + increment
            if integral is not integrals[-1]:
                fed = Nonnegative().project(fed)
        return constraints[-1].project(0.5 * (attended + fed))


@checked
class PaperSplitting(AbstractPaperSplitting):
    """The sub-steps as the paper prints them: in the feed-forward

        u_{2+j} = P_S2(u_{1+j} + h (⟨W_j, u_{1+j}⟩ + b_j)),   without P_S2 for j = J,

    where P_S2 is a ReLU. With h = 1 it is the paper's encoder block. It does not converge to
    the equation as h → 0: for J = 1 the relaxation halves the rate of the feed-forward; for
    J ≥ 2 the projection on S2 moves a state on S1 by a distance that h does not change.
    `ConsistentPaperSplitting` converges. Reference: Tai, Liu, Li and Chan, arXiv 2510.03989,
    section 3.
    """

    consistent: ClassVar[bool] = False


@checked
class ConsistentPaperSplitting(AbstractPaperSplitting):
    """The sub-steps of the paper, changed so that they converge to the equation

        u_t = ⟨γ, V⟩ + Σ_j (⟨W_j, u⟩ + b_j) + ∂I_S1(u).

    The feed-forward makes steps of 2h, `u_{2+j} = u_{1+j} + 2h (⟨W_j, u_{1+j}⟩ + b_j)`, which
    the relaxation halves. There is no projection on S2. Order 1.
    """

    fixed_order: ClassVar[int | None] = 1
