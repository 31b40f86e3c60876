"""Prepares a scheme for a solve."""

from typing import Any

import diffrax
import equinox as eqx
import numpy as np

from ..equation import AbstractConstraint, AbstractControl, Free, map_parts, parts
from ..errors import InputError
from .implicit import ImplicitEuler, MatrixFree
from .runge_kutta import unrolled
from .wrapper import projected


def prepared(
    solver: diffrax.AbstractSolver, constraint: AbstractControl, *, unroll: bool = False
) -> diffrax.AbstractSolver:
    """The scheme that makes the steps of a solve: projected on a constraint, with implicit
    schemes of diffrax solved by Newton–Krylov. `unroll` writes out the stages of diffrax's
    explicit Runge–Kutta methods, for equal steps."""
    sets = parts(eqx.filter_eval_shape(constraint, 0.0), AbstractConstraint)
    if not all(isinstance(x, Free) for x in sets):
        solver = projected(solver)
    kinds = diffrax.AbstractImplicitSolver, MatrixFree
    solver = map_parts(solver, kinds, _by_newton_krylov)
    return unrolled(solver) if unroll else solver


def _by_newton_krylov(solver: Any, _: int) -> diffrax.AbstractSolver:
    own = isinstance(solver, MatrixFree)
    if own or isinstance(solver.root_finder.rtol, int | float | np.ndarray):
        return solver
    kind = type(solver)
    if issubclass(kind, diffrax.ImplicitEuler):
        return ImplicitEuler()
    if issubclass(kind, diffrax.AbstractDIRK):
        return MatrixFree(solver)
    raise InputError(
        f"solve: {kind.__name__} leaves the tolerances of its root finder open; take "
        "diffrax.Kvaerno5()."
    )
