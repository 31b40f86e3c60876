"""Schemes for fields that are made of whole blocks: one step of length 1 of a splitting
scheme, as one map of the state."""

from typing import ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...equation import Depth, frozen
from ..base.step import single_step
from ..base.wrapper import AbstractTransparentWrapper
from ..splitting.splitting import AbstractSplitting


class BlockField(eqx.Module):
    """A block of layers as a vector field, `(t, u, args) ↦ B_t(u)`: B_t is one step of
    length 1 of a splitting scheme, its weights held at depth t.

    **Arguments:**

    - `terms`: those of the equation.
    - `block`: the splitting scheme.
    """

    terms: diffrax.MultiTerm
    block: AbstractSplitting

    def __call__(self, t: Depth, u: Array, args: PyTree) -> Array:
        terms = frozen(self.terms, t)
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
