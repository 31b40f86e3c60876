import diffrax
from jaxtyping import Array, PyTree

from ...equation import Depth
from ..runge_kutta.rk4 import RK4
from ..splitting.lie_trotter import LieTrotter
from ..splitting.splitting import AbstractSplitting
from .on_blocks import AbstractOnBlocks, BlockField


class ResidualField(BlockField):
    """The residual of a block as a vector field, `(t, u, args) ↦ B_t(u) - u`. With
    `LieTrotter(Euler())` it is what one layer of a pre-norm Transformer adds to the state."""

    def __call__(self, t: Depth, u: Array, args: PyTree) -> Array:
        return super().__call__(t, u, args) - u


class Residual(AbstractOnBlocks):
    """A scheme for the residual of whole blocks,

        u_t = B_t(u) - u,   B_t one step of length 1 of a splitting, its weights at depth t.

    With `Euler` and h = 1 it is the block itself, with `RK4` or `GatedRK2` the ODE
    Transformer. Reference: Li et al., arXiv 2203.09176.

    **Arguments:**

    - `solver`: solves for the residual field.
    - `block`: the splitting whose step is the block.
    """

    solver: diffrax.AbstractSolver = RK4()
    block: AbstractSplitting = LieTrotter()

    def inner_terms(self, terms: diffrax.MultiTerm) -> diffrax.ODETerm:
        return diffrax.ODETerm(ResidualField(terms, self.block))
