"""Schemes of whole blocks."""

from typing import ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..equation import Depth, slowed
from .runge_kutta import RK4
from .scheme import single_step
from .splitting import AbstractSplitting, LieTrotter
from .wrapper import AbstractTransparentWrapper


class BlockField(eqx.Module):
    """A block of layers as a vector field, `(t, u, args) ↦ B_t(u)`: B_t is one step of
    length 1 of a splitting scheme, its weights held at depth t."""

    terms: diffrax.MultiTerm
    block: AbstractSplitting

    def __call__(self, t: Depth, u: Array, args: PyTree) -> Array:
        terms = slowed(self.terms, t, 0.0)
        start, end = jnp.zeros((), u.dtype), jnp.ones((), u.dtype)
        return single_step(self.block, terms, start, end, u, args)


class AbstractOnBlocks(AbstractTransparentWrapper):
    """An unsplit solver for a field made of whole blocks; `inner_terms` gives that field."""

    block: eqx.AbstractVar[AbstractSplitting]

    # It solves for blocks of steps of length 1.
    consistent: ClassVar[bool] = False

    @property
    def term_structure(self) -> type:
        return diffrax.MultiTerm


class ResidualField(BlockField):
    """The residual of a block as a vector field, `(t, u, args) ↦ B_t(u) - u`."""

    def __call__(self, t: Depth, u: Array, args: PyTree) -> Array:
        return super().__call__(t, u, args) - u


class Residual(AbstractOnBlocks):
    """A scheme, `solver`, for the residual of whole blocks,

        u_t = B_t(u) - u,   B_t one step of length 1 of `block`, its weights at depth t.

    With `Euler` and h = 1 it is the block itself, with `RK4` or `GatedRK2` the ODE
    Transformer. Reference: Li et al., arXiv 2203.09176.
    """

    solver: diffrax.AbstractSolver = RK4()
    block: AbstractSplitting = LieTrotter()

    def inner_terms(self, terms: diffrax.MultiTerm) -> diffrax.ODETerm:
        return diffrax.ODETerm(ResidualField(terms, self.block))


class Velocity(AbstractOnBlocks):
    """A scheme, `solver`, for whole blocks as the velocity of the tokens,

        u_t = B_t(u),   B_t one step of length 1 of `block`, its weights at depth t:

    the field of `Residual` with the identity kept, as in the optimal-transport
    Transformer, whose loss also has the transport cost ∫ |u_t|² dt. Reference: Kan, Li, Osher,
    arXiv 2501.18793.
    """

    solver: diffrax.AbstractSolver = diffrax.Euler()
    block: AbstractSplitting = LieTrotter()

    def inner_terms(self, terms: diffrax.MultiTerm) -> diffrax.ODETerm:
        return diffrax.ODETerm(BlockField(terms, self.block))
