"""Implicit equations of a step, solved by Newton's method without a Jacobian matrix: the
Krylov method needs only its products with vectors."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.sharding import AxisType
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..errors import InputError


class Krylov(lx.GMRES):
    """GMRES, its tolerance `atol` relative to the root mean square of the right-hand side,
    which may be of any size: that of a gradient is often far below one."""

    # Whether a solution that did not reach the tolerance is turned into NaN. Within Newton's
    # method it is a good step all the same.
    strict: bool = False

    def compute(self, state: PyTree, vector: PyTree[Array], options: dict[str, Any]) -> tuple:
        scale = optx.rms_norm(vector)
        scale = jnp.where(scale > 0, scale, 1)
        scaled = jax.tree.map(lambda x: x / scale, vector)
        value, result, stats = super().compute(state, scaled, options)
        factor = jnp.where(result == lx.RESULTS.successful, scale, jnp.nan)
        factor = factor if self.strict else scale
        value = jax.tree.map(lambda x: (x * factor).astype(x.dtype), value)
        return value, lx.RESULTS.successful, stats


def make_krylov(tolerance: float, dimension: int, cycles: int, *, strict: bool) -> Krylov:
    """GMRES with so many vectors in a cycle, and so many cycles at most."""
    return Krylov(
        rtol=0.0,
        atol=tolerance,
        norm=optx.rms_norm,
        # The first pass of lineax only sets up the residual.
        max_steps=cycles + 1,
        restart=dimension,
        strict=strict,
    )


# The most by which a pseudo-step may grow.
_GROWTH = 2.0


class _NewtonState(eqx.Module):
    step: Int[Array, ""]
    size: Float[Array, ""]
    evaluations: Float[Array, ""]
    residual: Float[Array, ""]
    pseudo_step: Float[Array, ""]


class NewtonKrylov(optx.AbstractRootFinder):
    """Newton's method, each linear system solved by a cycle of GMRES,

        (1/δ + ∂r/∂y) Δ = r(y),   y ← y - Δ.

    With a finite δ it is an implicit Euler step of `y_s = -r(y)` over a pseudo-time δ, which
    also converges from a guess far away. As the residual falls, δ grows from `pseudo_step`, up
    to Newton's method. It stops when the root mean square of the last update, measured against
    `atol + rtol |y|`, falls below one. Reference: Kelley, Keyes, SIAM J. Numer. Anal. 35
    (1998).
    """

    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    pseudo_step: float = eqx.field(static=True, default=math.inf)
    # Of a GMRES cycle.
    dimension: int = eqx.field(static=True, default=12)
    norm: Callable = eqx.field(static=True, default=optx.rms_norm)

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> _NewtonState:
        infinite = jnp.asarray(jnp.inf, f_struct.dtype)
        return _NewtonState(
            step=jnp.array(0),
            size=infinite,
            evaluations=jnp.zeros_like(infinite),
            residual=infinite,
            pseudo_step=jnp.full_like(infinite, self.pseudo_step / _GROWTH),
        )

    def step(self, fn, y, args, options, state, tags) -> tuple:
        residual, products, aux = jax.linearize(lambda y: fn(y, args), y, has_aux=True)
        norm = self.norm(residual)
        growth = jnp.minimum(_GROWTH, state.residual / jnp.maximum(norm, 1e-30))
        pseudo_step = state.pseudo_step * growth
        jacobian = lx.FunctionLinearOperator(
            lambda v: v / pseudo_step + products(v), jax.eval_shape(lambda: y)
        )
        krylov = make_krylov(1e-3, self.dimension, cycles=1, strict=False)
        solution = lx.linear_solve(jacobian, residual, krylov, throw=False)
        update = solution.value
        y = y - update
        size = self.norm(update / (self.atol + self.rtol * jnp.abs(y)))
        dimension = min(self.dimension, y.size)
        cycles = solution.stats["num_steps"]
        products_made = (cycles - 1) * dimension + cycles
        state = _NewtonState(
            step=state.step + 1,
            size=size.astype(state.size.dtype),
            evaluations=state.evaluations + 1 + products_made,
            residual=norm.astype(state.size.dtype),
            pseudo_step=pseudo_step.astype(state.size.dtype),
        )
        return y, state, aux

    def terminate(
        self, fn, y, args, options, state, tags
    ) -> tuple[Bool[Array, ""], optx.RESULTS]:
        # A state that is not finite stays so.
        diverged = (state.step > 0) & ~jnp.isfinite(state.size)
        result = optx.RESULTS.where(
            diverged, optx.RESULTS.nonlinear_divergence, optx.RESULTS.successful
        )
        return diverged | (state.size < 1), result

    def postprocess(self, fn, y, aux, args, options, state, tags, result) -> tuple:
        return y, aux, {}


class Root(NamedTuple):
    """The root of an implicit equation, how the search ended, and the evaluations made."""

    value: Array
    result: Any
    evaluations: Float[Array, ""]


def find_root(
    residual: Callable[[Array, PyTree], Array],
    guess: Array,
    args: PyTree = None,
    *,
    tolerance: float | None,
    pseudo_step: float = math.inf,
    max_steps: int = 30,
) -> Root:
    """`y` with `residual(y, args) = 0`, to a relative and absolute tolerance, by default one
    that fits the dtype. Its gradient is that of the root, by the implicit function theorem."""
    if AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types:
        raise InputError(
            "an implicit equation inside jax.pmap or jax.shard_map, where lineax does not know "
            "arrays of one device. Call jax.jit or jax.vmap of the function on arrays with a "
            "jax.NamedSharding, or take an explicit scheme."
        )
    rounding = float(jnp.finfo(guess.dtype).eps) / 2
    if tolerance is None:
        # Well below the error of a step, well above rounding: 2e-12 in float64.
        tolerance = math.pow(2 * rounding, 0.75)
    elif tolerance < rounding:
        raise InputError(
            f"tolerance={tolerance} is below the rounding of {guess.dtype}; give at least "
            f"{rounding:.1e}, or leave it out."
        )
    solution = optx.root_find(
        residual,
        NewtonKrylov(rtol=tolerance, atol=tolerance, pseudo_step=pseudo_step),
        *_without_gradient((guess, args)),
        max_steps=max_steps,
        throw=False,
    )
    differentiable, rest = eqx.partition(args, eqx.is_inexact_array)
    root = _root((solution.value, differentiable), residual, rest, tolerance)
    result = diffrax.RESULTS.promote(solution.result)
    return Root(root, result, solution.state.evaluations)


def _without_gradient(tree: PyTree) -> PyTree:
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


# optimistix has this gradient too, but reports a linear solve that failed to the host, for
# which every step of a training run would have to wait.
@eqx.filter_custom_vjp
def _root(
    root_and_inputs: tuple[Array, PyTree], residual: Callable, rest: PyTree, tolerance: float
) -> Array:
    """The root, as a function of the inputs of the residual."""
    root, _ = root_and_inputs
    return root


@_root.def_fwd
def _root_forward(perturbed, root_and_inputs, residual, rest, tolerance):
    root, _ = root_and_inputs
    return root, None


@_root.def_bwd
def _root_backward(_, cotangent, perturbed, root_and_inputs, residual, rest, tolerance):
    """`-(∂r/∂θ)ᵀ w` with `(∂r/∂y)ᵀ w = cotangent`, r the residual."""
    root, inputs = root_and_inputs
    structure = jax.eval_shape(lambda: root)
    _, pull_root = jax.vjp(lambda y: residual(y, eqx.combine(inputs, rest)), root)
    transposed = lx.FunctionLinearOperator(lambda w: pull_root(w)[0], structure)
    krylov = make_krylov(tolerance, 20, cycles=20, strict=True)
    w = lx.linear_solve(transposed, cotangent, krylov, throw=False).value
    _, pull_inputs = jax.vjp(lambda x: residual(root, eqx.combine(x, rest)), inputs)
    (gradient,) = pull_inputs(-w)
    return jnp.zeros_like(root), gradient
