import diffrax

from .gradient import AbstractGradient


class Direct(AbstractGradient):
    """Keep every intermediate value. Adaptive solves then also allow forward mode."""

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return diffrax.DirectAdjoint()
