"""The scheme that makes the steps of a solve."""

import diffrax
import equinox as eqx

from ..equation import AbstractConstraint, AbstractControl, Free, parts
from .implicit import matrix_free
from .runge_kutta import unrolled
from .wrapper import projected


def prepared(
    solver: diffrax.AbstractSolver, constraint: AbstractControl, *, unroll: bool = False
) -> diffrax.AbstractSolver:
    """The scheme that makes the steps of a solve. On a constraint it is the projected variant
    of the scheme given. Implicit schemes of diffrax are solved by Newton–Krylov. With `unroll`
    the stages of its Runge–Kutta methods are written out, which is for equal steps."""
    sets = parts(eqx.filter_eval_shape(constraint, 0.0), AbstractConstraint)
    if not all(isinstance(x, Free) for x in sets):
        solver = projected(solver)
    solver = matrix_free(solver)
    return unrolled(solver) if unroll else solver
