"""Implicit schemes, solved by Newton–Krylov."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..arguments import PositiveFloat
from ..equation import map_parts
from ..errors import InputError
from .evaluations import EvaluationCount
from .newton_krylov import find_root
from .runge_kutta import combine, stacked
from .scheme import AbstractFieldScheme, Step, StepField, Terms, U, first_failure
from .splitting import LieTrotter
from .wrapper import AbstractWrapper


class AbstractImplicitScheme(AbstractFieldScheme):
    """A scheme that solves equations in each step; it carries the count of its evaluations."""

    def start(self, field: StepField, u: Array) -> EvaluationCount:
        return EvaluationCount(jnp.zeros((), u.dtype))


def _stage(stage: Array, inputs: tuple[StepField, float, Array, float]) -> Array:
    """The residual of the stage `Y = base + weight h F(t0 + c h, Y)`."""
    field, c, base, weight = inputs
    return stage - base - weight * field(c, stage)


class AbstractOneStage(AbstractImplicitScheme):
    """An implicit scheme of one stage,

        Y = u_n + c h F(t_n + c h, Y),   u_{n+1} = u_n + h F(t_n + c h, Y),

    at the fraction c of the step.
    """

    # c.
    node: eqx.AbstractClassVar[float]

    tolerance: PositiveFloat | None = eqx.field(static=True, default=None)

    def error(self, increment: Array, explicit: Array) -> Array | None:
        """An estimate of the local error, from the increment of the step and that of Euler's
        method, if there is one."""
        return None

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        c, explicit = self.node, field(0, u)
        inputs = field, c, u, c
        root = find_root(_stage, u + c * explicit, inputs, tolerance=self.tolerance)
        y1 = (root.value - (1 - c) * u) / c
        return Step.between(
            u,
            y1,
            error=self.error(y1 - u, explicit),
            state=state.plus(1 + root.evaluations),
            result=root.result,
        )


class ImplicitEuler(AbstractOneStage, diffrax.AbstractAdaptiveSolver):
    """The implicit Euler method,

        u_{n+1} = u_n + h F(t_{n+1}, u_{n+1}),

    solved by Newton–Krylov. First order, for stiff fields; the error estimate compares it
    with the trapezoidal rule.

    **Arguments:**

    - `tolerance`: of Newton's method, relative and absolute; by default one that fits the
      dtype of the state.
    """

    node: ClassVar[float] = 1.0

    def order(self, terms: Terms) -> int:
        return 1

    def error_order(self, terms: Terms) -> int:
        return 2

    def error(self, increment: Array, explicit: Array) -> Array:
        return 0.5 * (increment - explicit)


class ImplicitMidpoint(AbstractOneStage):
    """The implicit midpoint rule,

        u_{n+1} = u_n + h F(t_n + h/2, (u_n + u_{n+1})/2),

    solved by Newton–Krylov. Second order, symmetric; it keeps quadratic invariants.
    Reference: Hairer, Lubich, Wanner, Geometric Numerical Integration, section II.1.

    **Arguments:** as for `ImplicitEuler`.
    """

    node: ClassVar[float] = 0.5

    def order(self, terms: Terms) -> int:
        return 2


class MatrixFree(AbstractImplicitScheme, AbstractWrapper, diffrax.AbstractAdaptiveSolver):
    """A diagonally implicit Runge–Kutta method of diffrax, each stage

        Y_i = u_n + h Σ_{j<i} a_ij F(t_j, Y_j) + h a_ii F(t_i, Y_i)

    solved by Newton–Krylov. diffrax itself would form the Jacobian matrix, whose sides are
    as long as the whole state, when it computes a gradient.

    `solve` puts it around diffrax's `Kvaerno3`, `Kvaerno4` and `Kvaerno5` by itself.

    **Arguments:** the method, for its tableau, and `tolerance` as for `ImplicitEuler`.
    """

    solver: diffrax.AbstractDIRK
    tolerance: PositiveFloat | None = eqx.field(static=True, default=None)

    # `solve` puts it in by itself.
    configurable: ClassVar[bool] = False

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        tableau: Any = self.solver.tableau
        stages = zip(
            ((), *tableau.a_lower),
            ((), *(tableau.a_predictor or tableau.a_lower)),
            map(float, tableau.a_diagonal),
            map(float, (tableau.c1, *tableau.c)),
            strict=True,
        )
        increments, result = [], diffrax.RESULTS.successful
        for row, guess, diagonal, node in stages:
            partial = combine(u, row, increments)
            if diagonal == 0:
                increments.append(field(node, partial))
                state = state.plus(1)
                continue
            start = combine(partial, diagonal * np.asarray(guess), increments)
            inputs = field, node, partial, diagonal
            root = find_root(_stage, start, inputs, tolerance=self.tolerance)
            increments.append((root.value - partial) / diagonal)
            state = state.plus(root.evaluations)
            result = first_failure(result, root.result)
        y1 = combine(u, tableau.b_sol, increments)
        error = combine(jnp.zeros_like(u), tableau.b_error, increments)
        k = stacked(increments)
        return Step.between(u, y1, error=error, state=state, result=result, k=k)


def matrix_free(solver: PyTree) -> PyTree:
    """`solver` with the implicit schemes of diffrax inside it solved by Newton–Krylov, but
    for those that were given a root finder of their own."""
    kinds = diffrax.AbstractImplicitSolver, MatrixFree
    return map_parts(solver, kinds, _by_newton_krylov)


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
        f"solve: {kind.__name__} leaves the tolerances of its root finder open; give it "
        "one, or use ImplicitEuler(), ImplicitMidpoint() or diffrax.Kvaerno5()."
    )


class SteadyState(AbstractImplicitScheme, AbstractWrapper):
    """The end of time: a step goes to the state `u*` that a scheme leaves where it is,

        u* = Φ_h(u*),   Φ_h the step of the scheme,

    by Newton–Krylov, which starts with implicit steps in pseudo-time. With `Euler` that is
    `F(t, u*) = 0`, the limit `T → ∞` of the equation frozen at depth t. The gradient is
    that of the fixed point, by the implicit function theorem. It is sought for all samples and
    tokens together, padding among them: of several fixed points they decide which. With the
    step of a post-norm block and `SourcedAttention` it is the deep-equilibrium Transformer.
    Reference: Bai, Kolter, Koltun, arXiv 1909.01377.

    **Arguments:** the scheme whose fixed point is sought, and `tolerance` as for
    `ImplicitEuler`.
    """

    solver: diffrax.AbstractSolver = LieTrotter()
    tolerance: PositiveFloat | None = eqx.field(static=True, default=None)

    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation
    consistent: ClassVar[bool] = False

    def projected(self) -> "SteadyState":
        """The fixed point of the projected scheme."""
        return self.with_projected_solver()

    def order(self, terms: Terms) -> None:
        # It does not depend on the step.
        return None

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        root = find_root(
            _away_from_fixed_point,
            u,
            (self.solver, field),
            tolerance=self.tolerance,
            pseudo_step=0.5,
            max_steps=60,
        )
        made = state.plus(root.evaluations)
        return Step.between(u, root.value, state=made, result=root.result)


def _away_from_fixed_point(u: Array, inputs: tuple[diffrax.AbstractSolver, StepField]) -> Array:
    solver, field = inputs
    return u - field.single_step(solver, u)
