"""Running costs: of weights, of nearby solutions, and of distance from a constraint."""

import functools as ft
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ide_transformer.arguments import PositiveInt
from ide_transformer.dynamics import AbstractCost, Path, scan_intervals, square
from ide_transformer.equation import AbstractConstraint, Free, operator_fields, parts
from ide_transformer.errors import InputError


class ControlEnergy(AbstractCost):
    """`∫ |θ|² dt`, where |θ|² sums over all weights at depth t, or over their coefficients with
    a `space`."""

    def __call__(self, path: Path) -> Float[Array, ""]:
        return path.h * square(path.weights(0.5))


class Smoothness(AbstractCost):
    """`∫ |θ_t|² dt`, as `Σ_l |θ(t_{l+1}) - θ(t_l)|² / h`: for ordinary layers, differences of
    neighbours. Reference: Haber, Ruthotto, arXiv 1705.03341.

    **Raises:** `InputError` for weights that are constant in depth.
    """

    def __call__(self, path: Path) -> Float[Array, ""]:
        control = path.model.control
        if not control.depth_axes:
            name = type(control).__name__
            raise InputError(f"Smoothness: weights of {name} are constant; remove this cost.")
        interval = jax.tree.map(lambda x: x[-1] if eqx.is_array(x) else x, control.intervals())
        last = control.local(interval, 1.0)
        changes = jax.tree.map(
            lambda x, end: jnp.diff(jnp.concatenate([x, end[None]]), axis=0),
            path.weights(0.0),
            eqx.filter(last, eqx.is_inexact_array),
        )
        return square(changes) / path.h


class Contraction(AbstractCost):
    """`∫ mean max(0, μ - level) dt`, the mean over samples, with the logarithmic norm μ of the
    field F,

        μ(t) = λ_max((J + Jᵀ) / 2),   J = ∂F(t, u) / ∂u.

    Nearby solutions separate at most at the rate μ, and approach each other for μ < 0. Lanczos'
    method estimates μ from below, by products with J and Jᵀ. The eigenvector is held constant,
    which gives the gradient of the eigenvalue.

    **Arguments:**

    - `level`: the rate, per layer, above which the cost counts.
    - `products`: the number of products with J and with Jᵀ; each costs about a field
      evaluation.
    """

    level: float = eqx.field(static=True, default=0.0)
    products: PositiveInt = eqx.field(static=True, default=4)

    def __call__(self, path: Path) -> Float[Array, ""]:
        indices = jnp.arange(path.model.layers, dtype=path.states.dtype)

        def field(equation, index, interval, u):
            terms = equation.interval_terms(index, interval).terms
            rates = [term.vf((index + 0.5) * path.h, u, None) for term in terms]
            return sum(rates[1:], rates[0])

        def direction(inputs):
            *interval, u = inputs
            return _fastest_direction(ft.partial(field, fixed, *interval), u, self.products)

        def rate(inputs):
            *interval, u, v = inputs
            along = jax.jvp(ft.partial(field, equation, *interval), (u,), (v,))[1]
            return _product(v, along)

        equation = path.equation
        arrays, static = eqx.partition((equation, path.middles), eqx.is_array)
        fixed, middles = eqx.combine(lax.stop_gradient(arrays), static)
        v = lax.map(direction, (indices, fixed.intervals(), middles))
        intervals = indices, equation.intervals(), path.middles, v
        rates = lax.map(jax.checkpoint(rate), intervals)
        hinge = jax.nn.relu(rates - self.level)
        return path.h * jnp.sum(jnp.mean(hinge, axis=range(1, hinge.ndim)))


class ConstraintViolation(AbstractCost):
    """`∫ mean dist(u, S)² dt`, the mean over samples and tokens. States are taken in the middle
    of intervals, since steps end on the constraint. The distance is
    `AbstractConstraint.residual`.

    **Arguments:**

    - `constraint`: S; default: the constraint of the last operator.
    """

    constraint: AbstractConstraint | None = None

    def __call__(self, path: Path) -> Float[Array, ""]:
        def residual(_, terms, start, u):
            last = operator_fields(terms)[-1]
            return None, last.constraint(start + path.h / 2).residual(u)

        u = path.middles
        if self.constraint is not None:
            distances = self.constraint.residual(u)
        elif all(isinstance(x, Free) for x in parts(path.model.constraint, AbstractConstraint)):
            raise InputError(
                "ConstraintViolation: the equation has no constraint; set "
                "training.costs.constraint_violation.options.constraint=sphere."
            )
        else:
            _, distances = scan_intervals(path.equation, residual, None, u, dtype=u.dtype)
        return path.h * jnp.sum(jnp.mean(distances**2, axis=range(1, distances.ndim)))


def _fastest_direction(field: Callable[[Array], Array], u: Array, products: int) -> Array:
    """The leading eigenvector of the symmetric part of the Jacobian, by Lanczos."""
    _, along = jax.linearize(field, u)
    across = jax.linear_transpose(along, u)

    def extend(basis, k):
        image = (along(basis[k]) + across(basis[k])[0]) / 2
        rest = image
        for _ in range(2):  # twice, against rounding
            shares = jnp.einsum("k...xy,...xy->k...", basis, rest)
            rest = rest - jnp.einsum("k...,k...xy->...xy", shares, basis)
        size = jnp.sqrt(_product(rest, rest))[..., None, None]
        # Zero if there is no further direction.
        is_new = size > 1e-5 * jnp.sqrt(_product(image, image))[..., None, None]
        unit = jnp.where(is_new, rest / jnp.where(is_new, size, 1), 0)
        return basis.at[k + 1].set(unit, mode="drop"), image

    # All samples start from one random vector.
    start = jax.random.normal(jax.random.key(0), u.shape[-2:], u.dtype)
    start = start / jnp.sqrt(_product(start, start))
    basis = jnp.zeros((products, *u.shape), u.dtype).at[0].set(start)
    basis, images = lax.scan(extend, basis, jnp.arange(products))
    matrix = jnp.einsum("j...xy,k...xy->...jk", basis, images)
    # Zero vectors get the lowest eigenvalue.
    is_zero = jnp.einsum("k...xy,k...xy->...k", basis, basis) < 0.5
    lowest = -1 - jnp.sum(jnp.abs(matrix), axis=(-2, -1))[..., None]
    shift = jnp.where(is_zero, lowest, 0)
    matrix = matrix + jnp.einsum("...k,jk->...jk", shift, jnp.eye(products, dtype=u.dtype))
    _, vectors = jnp.linalg.eigh(matrix)
    return jnp.einsum("...k,k...xy->...xy", vectors[..., -1], basis)


def _product(a: Array, b: Array) -> Array:
    """The inner product of states, for each sample."""
    return jnp.sum(a * b, axis=(-2, -1))
