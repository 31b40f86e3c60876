"""Prepares a scheme for a solve."""

from typing import Any

import diffrax
import equinox as eqx
import numpy as np

from ..equation import AbstractConstraint, AbstractControl, Free, map_parts, parts
from ..errors import InputError
from .implicit import ImplicitEuler, MatrixFree
from .runge_kutta import unroll_stages
from .scheme import solvers_of
from .wrapper import projected


def prepare_solver(
    solver: diffrax.AbstractSolver, constraint: AbstractControl, *, unroll: bool = False
) -> diffrax.AbstractSolver:
    """Returns the scheme that makes the steps of a solve: it projects on the constraint, and
    implicit schemes of diffrax use Newton–Krylov. `unroll` unrolls the stages of diffrax's
    explicit Runge–Kutta methods, for equal steps."""
    check_kind(solver)
    sets = parts(eqx.filter_eval_shape(constraint, 0.0), AbstractConstraint)
    if not all(isinstance(x, Free) for x in sets):
        solver = projected(solver)
    kinds = diffrax.AbstractImplicitSolver, MatrixFree
    solver = map_parts(solver, kinds, _by_newton_krylov)
    return unroll_stages(solver) if unroll else solver


_STOCHASTIC = (
    diffrax.AbstractSRK,
    diffrax.AbstractFosterLangevinSRK,
    diffrax.EulerHeun,
    diffrax.ItoMilstein,
    diffrax.StratonovichMilstein,
)
_OF_TWO_TERMS = diffrax.KenCarp3, diffrax.KenCarp4, diffrax.KenCarp5, diffrax.Sil3
# Solvers of other equations, and what to use instead.
_OTHER_EQUATIONS = {
    _STOCHASTIC: "is for stochastic equations; use a solver for ordinary ones, such as "
    "diffrax.Heun()",
    diffrax.SemiImplicitEuler: "is for a state of two parts, such as positions and velocities; "
    "use ide.LieTrotter(), which solves one operator after the other",
    _OF_TWO_TERMS: "needs one explicit and one implicit term; use diffrax.Kvaerno5(), or "
    "ide.ETDRK4() with a linear operator",
}


def check_kind(solver: diffrax.AbstractSolver) -> None:
    """Raises `InputError` for solvers of stochastic or partitioned equations."""
    for inside in solvers_of(solver):
        for kinds, advice in _OTHER_EQUATIONS.items():
            if issubclass(type(inside), kinds):
                raise InputError(f"solve: {type(inside).__name__} {advice}.")


def _by_newton_krylov(solver: Any, _: int) -> diffrax.AbstractSolver:
    if isinstance(solver, MatrixFree):
        return solver
    if isinstance(solver.root_finder.rtol, int | float | np.ndarray):
        return solver
    kind = type(solver)
    if issubclass(kind, diffrax.ImplicitEuler):
        return ImplicitEuler()
    if issubclass(kind, diffrax.AbstractDIRK):
        return MatrixFree(solver)
    raise InputError(
        f"solve: {kind.__name__} has a root finder without tolerances; set them, or use "
        "diffrax.Kvaerno5()."
    )
