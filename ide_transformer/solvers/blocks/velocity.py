import diffrax

from ..splitting.lie_trotter import LieTrotter
from ..splitting.splitting import AbstractSplitting
from .on_blocks import AbstractOnBlocks, BlockField


class Velocity(AbstractOnBlocks):
    """A scheme for whole blocks as the velocity of the tokens,

        u_t = B_t(u),   B_t one step of length 1 of a splitting, its weights at depth t:

    the field of `Residual` with the identity kept, as in the optimal-transport
    Transformer, whose loss also has the transport cost ∫ |u_t|² dt. Reference: Kan, Li, Osher,
    arXiv 2501.18793.

    **Arguments:**

    - `solver`: solves for the velocity field.
    - `block`: the splitting whose step is the block.
    """

    solver: diffrax.AbstractSolver = diffrax.Euler()
    block: AbstractSplitting = LieTrotter()

    def inner_terms(self, terms: diffrax.MultiTerm) -> diffrax.ODETerm:
        return diffrax.ODETerm(BlockField(terms, self.block))
