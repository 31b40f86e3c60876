"""Implicit schemes, solved by Newton–Krylov methods without a Jacobian matrix."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from jax import lax
from jaxtyping import Array, Float, PyTree

from ..arguments import PositiveFloat, checked
from ..errors import InputError
from .evaluations import EvaluationCount
from .runge_kutta import combine
from .scheme import AbstractScheme, Step, StepField, Terms, first_failure
from .wrapper import AbstractWrapper


def krylov_solve(
    product: Callable[[Array], Array],
    vector: Array,
    tolerance: float,
    dimension: int,
    cycles: int = 1,
) -> lx.Solution:
    """Solves `product(x) = vector` by GMRES, to a `tolerance` relative to the vector."""
    scale = optx.rms_norm(vector)
    scale = jnp.where(scale > 0, scale, 1)
    # lineax computes the first residual in a step.
    solver = lx.GMRES(0.0, tolerance, optx.rms_norm, max_steps=cycles + 1, restart=dimension)
    operator = lx.FunctionLinearOperator(product, jax.eval_shape(lambda: vector))
    solution = lx.linear_solve(operator, vector / scale, solver, throw=False)
    return eqx.tree_at(
        lambda x: x.value, solution, (solution.value * scale).astype(vector.dtype)
    )


class Root(NamedTuple):
    """A root, whether the search succeeded, and its evaluations."""

    value: Array
    result: Any
    evaluations: Float[Array, ""]


# Krylov vectors in a cycle of GMRES.
_DIMENSION = 12
# The largest growth of a pseudo-step.
_GROWTH = 2.0


class _Search(NamedTuple):
    y: Array
    step: Array
    # The size of the last update, in units of the tolerance.
    size: Array
    evaluations: Array
    residual: Array
    pseudo_step: Array

    @property
    def diverged(self) -> Array:
        return (self.step > 0) & ~jnp.isfinite(self.size)


def find_root(
    residual: Callable[[Array, PyTree], Array],
    guess: Array,
    args: PyTree = None,
    *,
    tolerance: float | None,
    pseudo_step: float = math.inf,
    max_steps: int = 30,
) -> Root:
    """Finds y with `r(y, args) = 0` for the `residual` r by Newton's method,

        (1/δ + ∂r/∂y) Δ = r(y),   y ← y - Δ.

    The gradient uses the implicit function theorem. A finite δ, which grows from `pseudo_step`
    as the residual falls, helps convergence from a distant guess. The search stops when the
    root mean square of `Δ / (tolerance (1 + |y|))` is below one. Reference: Kelley, Keyes,
    SIAM J. Numer. Anal. 35 (1998).
    """
    rounding = float(jnp.finfo(guess.dtype).eps) / 2
    if tolerance is None:
        # Below the error of a step and above rounding: 2e-12 in float64.
        tolerance = math.pow(2 * rounding, 0.75)
    elif tolerance < rounding:
        raise InputError(f"{tolerance=} is below rounding; set {rounding:.1e} or more.")
    differentiable, rest = eqx.partition(args, eqx.is_inexact_array)
    start, fixed = lax.stop_gradient((guess, differentiable))

    def improve(last: _Search) -> _Search:
        y = last.y
        value, products = jax.linearize(lambda y: residual(y, eqx.combine(fixed, rest)), y)
        norm = optx.rms_norm(value)
        growth = jnp.minimum(_GROWTH, last.residual / jnp.maximum(norm, 1e-30))
        pseudo_step = last.pseudo_step * growth
        solution = krylov_solve(
            lambda v: v / pseudo_step + products(v), value, 1e-3, _DIMENSION
        )
        y = y - solution.value
        size = optx.rms_norm(solution.value / (tolerance + tolerance * jnp.abs(y)))
        cycles = solution.stats["num_steps"]
        evaluations = last.evaluations + 1 + (cycles - 1) * min(_DIMENSION, y.size) + cycles
        return _Search(y, last.step + 1, size, evaluations, norm, pseudo_step)

    infinite = jnp.asarray(jnp.inf, guess.dtype)
    step = jnp.full_like(infinite, pseudo_step / _GROWTH)
    end = lax.while_loop(
        lambda last: (last.step < max_steps) & (last.size >= 1) & ~last.diverged,
        improve,
        _Search(start, jnp.array(0), infinite, jnp.zeros_like(infinite), infinite, step),
    )
    results: Any = diffrax.RESULTS
    result = results.where(
        end.size < 1, results.successful, results.nonlinear_max_steps_reached
    )
    result = results.where(end.diverged, results.nonlinear_divergence, result)
    root = _root((end.y, differentiable), residual, rest, tolerance)
    return Root(root, result, end.evaluations)


# Not optimistix, which reports a failed solve to the host, so that training steps wait.
@eqx.filter_custom_vjp
def _root(
    root_and_inputs: tuple[Array, PyTree], residual: Callable, rest: PyTree, tolerance: float
) -> Array:
    """The root as a function of the inputs of the residual."""
    return root_and_inputs[0]


@_root.def_fwd
def _root_forward(perturbed, root_and_inputs, residual, rest, tolerance):
    return root_and_inputs[0], None


@_root.def_bwd
def _root_backward(_, cotangent, perturbed, root_and_inputs, residual, rest, tolerance):
    """`-(∂r/∂θ)ᵀ w` with `(∂r/∂y)ᵀ w = cotangent` for the residual r."""
    root, inputs = root_and_inputs
    _, pull_root = jax.vjp(lambda y: residual(y, eqx.combine(inputs, rest)), root)
    solution = krylov_solve(lambda w: pull_root(w)[0], cotangent, tolerance, 20, 20)
    w = jnp.where(solution.result == lx.RESULTS.successful, solution.value, jnp.nan)
    _, pull_inputs = jax.vjp(lambda x: residual(root, eqx.combine(x, rest)), inputs)
    (gradient,) = pull_inputs(-w)
    return jnp.zeros_like(root), gradient


class AbstractImplicitScheme(AbstractScheme):
    """A scheme that solves an equation in each step and counts evaluations in its memory."""

    def start(self, field: StepField, u: Array) -> EvaluationCount:
        return EvaluationCount(jnp.zeros((), u.dtype))


def _stage(stage: Array, inputs: tuple[StepField, float, Array, float]) -> Array:
    """The residual of the stage `Y = base + weight h F(t0 + c h, Y)`."""
    field, c, base, weight = inputs
    return stage - base - weight * field(c, stage)


class AbstractOneStage(AbstractImplicitScheme):
    """An implicit scheme with one stage, at the fraction c of the step,

    Y = u_n + c h F(t_n + c h, Y),   u_{n+1} = u_n + h F(t_n + c h, Y).
    """

    # c.
    node: eqx.AbstractClassVar[float]
    # Whether the difference from an Euler step estimates the local error.
    estimates: ClassVar[bool] = False

    tolerance: PositiveFloat | None = eqx.field(static=True, default=None)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        c = self.node
        explicit = field(0, u)
        inputs = field, c, u, c
        root = find_root(_stage, u + c * explicit, inputs, tolerance=self.tolerance)
        y1 = (root.value - (1 - c) * u) / c
        error = 0.5 * (y1 - u - explicit) if self.estimates else None
        state = state.plus(1 + root.evaluations)
        return Step.between(u, y1, error=error, state=state, result=root.result)


@checked
class ImplicitEuler(AbstractOneStage, diffrax.AbstractAdaptiveSolver):
    """The implicit Euler method,

        u_{n+1} = u_n + h F(t_{n+1}, u_{n+1}),

    solved by Newton–Krylov. Order 1, for stiff fields. The error estimate is the difference
    from the trapezoidal rule.

    **Arguments:** `tolerance` of Newton's method, relative and absolute; the default depends on
    the dtype of the state.
    """

    node: ClassVar[float] = 1.0
    estimates: ClassVar[bool] = True
    fixed_order: ClassVar[int | None] = 1

    def error_order(self, terms: Terms) -> int:
        return 2


@checked
class ImplicitMidpoint(AbstractOneStage):
    """The implicit midpoint rule,

        u_{n+1} = u_n + h F(t_n + h/2, (u_n + u_{n+1})/2),

    solved by Newton–Krylov. Order 2, symmetric; it preserves quadratic invariants.
    Reference: Hairer, Lubich, Wanner, Geometric Numerical Integration, section II.1.

    **Arguments:** `tolerance` of Newton's method, relative and absolute; the default depends on
    the dtype of the state.
    """

    node: ClassVar[float] = 0.5
    fixed_order: ClassVar[int | None] = 2


@checked
class MatrixFree(AbstractImplicitScheme, AbstractWrapper, diffrax.AbstractAdaptiveSolver):
    """A diagonally implicit Runge–Kutta method of diffrax, its stages

        Y_i = u_n + h Σ_{j<i} a_ij F(t_j, Y_j) + h a_ii F(t_i, Y_i)

    solved by Newton–Krylov. For gradients diffrax itself would form the Jacobian matrix of the
    state. `solve` wraps diffrax's `Kvaerno3`, `Kvaerno4` and `Kvaerno5` in it.

    **Arguments:** `solver`, the method of diffrax; `tolerance` of Newton's method, relative and
    absolute, whose default depends on the dtype of the state.
    """

    solver: diffrax.AbstractDIRK
    tolerance: PositiveFloat | None = eqx.field(static=True, default=None)

    # Only `solve` uses it.
    configurable: ClassVar[bool] = False

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        tableau = self.solver.tableau
        assert isinstance(tableau, diffrax.ButcherTableau) and tableau.a_diagonal is not None
        stages = zip(
            ((), *tableau.a_lower),
            ((), *(tableau.a_predictor or tableau.a_lower)),
            map(float, tableau.a_diagonal),
            map(float, (tableau.c1, *tableau.c)),
            strict=True,
        )
        increments: list[Array] = []
        result = diffrax.RESULTS.successful
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
        k = jnp.stack(increments)
        return Step.between(u, y1, error=error, state=state, result=result, k=k)
