"""The feature domain Ω_y, bases of functions on it, and weights as kernels."""

import abc
import dataclasses
import functools as ft
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arguments import PositiveInt, checked
from ..errors import InputError
from .rules import PointRule, point_rule


Points: TypeAlias = Float[Array, " points"]
Values: TypeAlias = Float[Array, "points modes"]


@checked
class FeatureDomain(eqx.Module):
    """Points `y_j` of Ω_y = [0, 1] and quadrature weights `w_j` of sum 1:

        ∫_Ωy g(y) dy  ≈  Σ_j w_j g(y_j).

    The width of a state is the number of points. `FunctionSpace` makes weights functions of y.

    **Arguments:**

    - `features`: the number of points.
    - `rule`: `"midpoint"`, the middles of equal parts, of order 2, and faster than any power
      for a cosine series; `"periodic"`, the points `j / features` of a circle;
      `"gauss_legendre"`, exact for polynomials of degree `2 features - 1`.
    """

    features: PositiveInt = eqx.field(static=True)
    rule: PointRule = eqx.field(static=True, default="midpoint")

    @property
    def points(self) -> np.ndarray:
        return point_rule(self.rule, self.features)[0]

    @property
    def weights(self) -> np.ndarray:
        return point_rule(self.rule, self.features)[1]

    @property
    def equal(self) -> bool:
        """Whether all weights are equal."""
        return self.rule in ("midpoint", "periodic")

    def with_points(self, features: int) -> "FeatureDomain":
        """The domain with another number of points, by the same rule."""
        return dataclasses.replace(self, features=features)


class AbstractBasis(eqx.Module):
    """Orthonormal functions on Ω_y = [0, 1]: φ_0, φ_1, …, `∫ φ_a φ_b dy = δ_ab`. Arrays of a
    subclass are trained."""

    @abc.abstractmethod
    def __call__(self, y: Points, modes: int) -> Values:
        """The first `modes` functions at points y."""

    def check(self, domain: FeatureDomain, modes: int) -> None:
        """Raises `InputError` if the points cannot represent `modes` functions."""


@checked
class Cosine(AbstractBasis):
    """Smooth functions with free values at both ends: `φ_0 = 1`, `φ_a(y) = √2 cos(aπy)`.

    At n midpoints, n functions are the discrete cosine transform, an orthogonal matrix. A
    cosine series is even about both ends, so the midpoint rule converges faster than any
    power."""

    def __call__(self, y: Points, modes: int) -> Values:
        a = jnp.arange(modes)
        size = jnp.where(a == 0, 1.0, jnp.sqrt(2.0))[None]
        return size.astype(y.dtype) * jnp.cos(jnp.pi * jnp.outer(y, a.astype(y.dtype)))


@checked
class Legendre(AbstractBasis):
    """Legendre polynomials, `φ_a(y) = √(2a+1) P_a(2y - 1)`. Use the rule `"gauss_legendre"`: n
    functions at n points are orthonormal only there."""

    def __call__(self, y: Points, modes: int) -> Values:
        x = 2 * y - 1
        values = [jnp.ones_like(x), x]
        for a in range(1, modes - 1):
            values.append(((2 * a + 1) * x * values[a] - a * values[a - 1]) / (a + 1))
        size = jnp.sqrt(2 * jnp.arange(modes, dtype=y.dtype) + 1)
        return size[None] * jnp.stack(values[:modes], axis=1)


@checked
class Nodal(AbstractBasis):
    """Functions that are constant on n = `modes` equal parts, `φ_a = √n` on part a.

    At n midpoints, kernels are the matrices of an ordinary Transformer; at r n points every
    feature appears r times. The number of points must be a multiple of n."""

    def __call__(self, y: Points, modes: int) -> Values:
        part = jax.nn.one_hot(_parts(y, modes), modes, dtype=y.dtype)
        return jnp.sqrt(jnp.asarray(modes, y.dtype)) * part

    def check(self, domain: FeatureDomain, modes: int) -> None:
        sums = np.bincount(_parts(domain.points, modes), domain.weights, modes)
        if np.ptp(sums) > 1e-6 / modes:
            raise InputError(
                f"Nodal: {domain.features} points of rule={domain.rule} have unequal weight on "
                f"{modes} parts; use a multiple of {modes} points, or Cosine()."
            )


def _parts(y: Any, modes: int) -> Any:
    # Rounding may put the beginning of a part, j / modes, below it.
    above = 1 + 4 * jnp.finfo(y.dtype).eps
    return (y * modes * above).astype(int).clip(0, modes - 1)


class FeatureMap(eqx.Module):
    """Maps the m coefficients of a function to its values at n points and to integrals with it.

    - `values`: P, `P_ja = φ_a(y_j) / √m`, orthogonal at m points of equal weight; `None` for
      the identity.
    - `duals`: R, `R_ja = √m w_j φ_a(y_j)`: `Σ_j R_ja v_j` is coefficient a of values v.
    """

    values: Float[Array | np.ndarray, "points modes"] | None
    duals: Float[Array | np.ndarray, "points modes"] | None

    def of_values(self, c: Float[Array, "*batch modes"]) -> Float[Array, "*batch points"]:
        """`P c`, the values of functions with coefficients c."""
        return c if self.values is None else c @ self.values.T.astype(c.dtype)

    def of_duals(self, c: Float[Array, "*batch modes"]) -> Float[Array, "*batch points"]:
        """`R c`, the factors of the values v in `∫ c(y) v(y) dy`."""
        return c if self.duals is None else c @ self.duals.T.astype(c.dtype)

    def of_factors(self, c: Float[Array, " modes"]) -> Float[Array, " points"]:
        """`c̄ + P (c - c̄)`, c̄ the mean of c: a constant factor stays constant."""
        mean = jnp.mean(c)
        return mean + self.of_values(c - mean)


def _feature_map(
    basis: AbstractBasis, domain: FeatureDomain, modes: int, dtype: np.dtype
) -> FeatureMap:
    phi = basis(jnp.asarray(domain.points, dtype), modes)
    size = jnp.sqrt(jnp.asarray(modes, phi.dtype))
    weights = jnp.asarray(domain.weights, dtype)
    return FeatureMap(phi / size, size * weights[:, None] * phi)


@ft.cache
def _constant_feature_map(
    basis: AbstractBasis, domain: FeatureDomain, modes: int, dtype: np.dtype
) -> FeatureMap:
    """The map for a basis that is not trained. Each evaluation of a field asks for it."""
    with jax.ensure_compile_time_eval():
        return jax.tree.map(np.asarray, _feature_map(basis, domain, modes, dtype))


# The map for numbers that are not functions of y, such as the channels of an image.
PLAIN = FeatureMap(None, None)


@checked
class FunctionSpace(eqx.Module):
    """Functions of a feature y: the span of the first functions of a basis, stored at the
    points of Ω_y. States are functions `u(x, y, t)`, and weights are kernels

        W(y, ξ, t) = √(m_in / m_out) Σ_ab C_ab(t) φ_a(ξ) φ_b(y)

    from m_in coefficients to m_out. So the width is a resolution: coefficients C give matrices
    for any number of points, and at m points C is the matrix of an ordinary Transformer. Heads
    and hidden features have domains of the same rule, and as many points per coefficient.

    **Arguments:**

    - `basis`: φ.
    - `modes`: m, the number of coefficients of a state.
    - `domain`: the points of Ω_y.
    """

    basis: AbstractBasis
    modes: PositiveInt = eqx.field(static=True)
    domain: FeatureDomain = eqx.field(static=True)

    def __check_init__(self):
        if self.modes > self.domain.features:
            raise InputError(
                f"FunctionSpace: {self.domain.features} points cannot represent {self.modes} "
                "modes; use more features, or fewer modes."
            )
        self.basis.check(self.domain, self.modes)

    @property
    def features(self) -> FeatureMap:
        """The map for states."""
        return self.inner(self.modes)

    def inner(self, modes: int) -> FeatureMap:
        """The map for functions with `modes` coefficients."""
        domain, dtype = self.domain_of(modes), jnp.result_type(float)
        leaves = jax.tree.leaves(self.basis)
        if any(isinstance(x, (jax.Array, np.ndarray)) for x in leaves):
            return _feature_map(self.basis, domain, modes, dtype)
        return _constant_feature_map(self.basis, domain, modes, dtype)

    def heads(self, heads: int, modes: int) -> FeatureMap:
        """The map for functions on Ω_h × Ω_y, with `modes` coefficients for each head."""
        head = self.inner(modes)
        assert head.values is not None and head.duals is not None
        identity = jnp.eye(heads, dtype=head.values.dtype)
        return FeatureMap(jnp.kron(identity, head.values), jnp.kron(identity, head.duals))

    def domain_of(self, modes: int) -> FeatureDomain:
        """The points of functions with `modes` coefficients."""
        points, rest = divmod(modes * self.domain.features, self.modes)
        if rest:
            raise InputError(
                f"FunctionSpace: {modes} modes must have a whole number of points; set a "
                f"multiple of {self.modes} features, got {self.domain.features}."
            )
        domain = self.domain.with_points(points)
        self.basis.check(domain, modes)
        return domain

    def with_points(self, features: int) -> "FunctionSpace":
        """The same functions at another number of points."""
        return dataclasses.replace(self, domain=self.domain.with_points(features))
