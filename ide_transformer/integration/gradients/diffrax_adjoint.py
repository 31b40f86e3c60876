import diffrax

from ...errors import InputError
from ..march import Steps
from ..output import Start
from ..trajectory import Trajectory
from .gradient import AbstractGradient


class DiffraxAdjoint(AbstractGradient):
    """An adjoint of diffrax, for adaptive steps alone."""

    wrapped: diffrax.AbstractAdjoint

    configurable = False

    def __check_init__(self):
        if isinstance(self.wrapped, diffrax.BacksolveAdjoint):
            raise InputError(
                "solve: BacksolveAdjoint solves the state backwards, which is not the gradient "
                "of the discrete solution and is wrong for layered weights, where the field "
                "jumps; use gradient=Recompute() or Direct()."
            )

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return self.wrapped

    def march(self, steps: Steps, start: Start) -> Trajectory:
        raise InputError(
            f"solve: gradient={type(self.wrapped).__name__}() is an adjoint of diffrax's "
            "adaptive loop; fixed steps march by a scan: use gradient=Recompute(), "
            "Recursive() or Direct()."
        )


def as_gradient(gradient: AbstractGradient | diffrax.AbstractAdjoint) -> AbstractGradient:
    """A gradient mode, or the one that an adjoint of diffrax stands for."""
    if isinstance(gradient, diffrax.AbstractAdjoint):
        return DiffraxAdjoint(gradient)
    return gradient
