"""The gradient modes that are compared, each around a scheme that it serves."""

from typing import NamedTuple

import diffrax

from ide_transformer.integration import (
    AbstractGradient,
    Direct,
    Recompute,
    Recursive,
    Reversible,
)
from ide_transformer.solvers import AlgebraicallyReversible, LieTrotter, Projected

from .problem import Shape, gradient_of_solve, post_norm, pre_norm


class Mode(NamedTuple):
    """A gradient mode around a scheme; the scheme is projected where the state is
    constrained."""

    name: str
    solver: diffrax.AbstractSolver
    projected_solver: diffrax.AbstractSolver
    gradient: AbstractGradient


_PLAIN = LieTrotter(diffrax.Euler()), LieTrotter(Projected(diffrax.Euler()))

_REVERSIBLE = (
    AlgebraicallyReversible(LieTrotter()),
    AlgebraicallyReversible(LieTrotter()).projected(),
)

# The first is the reference.
MODES = (
    Mode("Direct", *_PLAIN, Direct()),
    Mode("Recompute", *_PLAIN, Recompute()),
    Mode("Recompute, nothing saved", *_PLAIN, Recompute(policy=None)),
    Mode("Recursive", *_PLAIN, Recursive()),
    Mode("reversible scheme, Direct", *_REVERSIBLE, Direct()),
    Mode("reversible scheme, Recompute", *_REVERSIBLE, Recompute()),
    Mode("reversible scheme, Reversible", *_REVERSIBLE, Reversible()),
)

NORMALIZATIONS = ("pre-norm", "post-norm")


def programs(normalization: str, depth: int, shape: Shape) -> dict[str, tuple]:
    """Of each mode, by its name: the program of one gradient, and its arguments.

    **Arguments:**

    - `normalization`: one of `NORMALIZATIONS`.
    - `depth`: layers.
    """
    constrained = normalization == "post-norm"
    equation = (post_norm if constrained else pre_norm)(depth, shape)
    return {
        mode.name: gradient_of_solve(
            equation,
            mode.projected_solver if constrained else mode.solver,
            mode.gradient,
            shape.state(),
        )
        for mode in MODES
    }
