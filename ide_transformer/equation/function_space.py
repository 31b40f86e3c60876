"""The feature domain Ω_y, bases of functions on it, and the kernels between such functions."""

import abc
import dataclasses
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
Values: TypeAlias = Float[Array, "points number"]


@checked
class FeatureDomain(eqx.Module):
    """Points `y_j` of Ω_y = [0, 1] and quadrature weights `w_j` of sum 1, so that

        ∫_Ωy g(y) dy  ≈  Σ_j w_j g(y_j).

    The width of a state is their number; see `FunctionSpace` for weights that are functions of
    y. It holds no array and is the same for all that have the same rule and number.

    **Arguments:**

    - `features`: the number of points.
    - `rule`: "midpoint", the middles of equal parts, of order 2, and for a cosine series
      faster than any power; "periodic", the points `j / features` of a circle;
      "gauss_legendre" and "clenshaw_curtis" as for `TokenDomain`.
    """

    features: PositiveInt = eqx.field(static=True)
    rule: PointRule = eqx.field(static=True, default="midpoint")

    def __check_init__(self):
        if self.rule == "clenshaw_curtis" and self.features < 2:
            raise InputError("FeatureDomain: clenshaw_curtis takes both ends; give features=2.")

    @property
    def points(self) -> np.ndarray:
        """`[features]`, in [0, 1]."""
        return point_rule(self.rule, self.features)[0]

    @property
    def weights(self) -> np.ndarray:
        """`[features]`, of sum 1."""
        return point_rule(self.rule, self.features)[1]

    @property
    def equal(self) -> bool:
        """Whether all weights are the same, so that means over Ω_y are those of features."""
        return self.rule in ("midpoint", "periodic")

    def with_points(self, features: int) -> "FeatureDomain":
        """Another number of points, by the same rule."""
        return dataclasses.replace(self, features=features)


class AbstractBasis(eqx.Module):
    """Orthonormal functions on Ω_y = [0, 1]: φ_0, φ_1, …, `∫ φ_a φ_b dy = δ_ab`. Arrays among
    the fields of a subclass are trained with the coefficients."""

    @abc.abstractmethod
    def __call__(self, y: Points, number: int) -> Values:
        """The values of the first `number` functions at points y."""

    def check(self, domain: FeatureDomain, number: int) -> None:
        """Refuses points at which so many functions would be others than at more points."""


@checked
class Cosine(AbstractBasis):
    """Smooth functions with free values at both ends: `φ_0 = 1`, `φ_a(y) = √2 cos(aπy)`.
    At as many midpoints as functions this is the discrete cosine transform, an orthogonal
    matrix. Here the midpoint rule is of more than second order: a cosine series is even about
    both ends, so that they are no ends for it."""

    def __call__(self, y: Points, number: int) -> Values:
        a = jnp.arange(number)
        size = jnp.where(a == 0, 1.0, jnp.sqrt(2.0))[None]
        return size.astype(y.dtype) * jnp.cos(jnp.pi * jnp.outer(y, a.astype(y.dtype)))


@checked
class Legendre(AbstractBasis):
    """Legendre's polynomials, `φ_a(y) = √(2a+1) P_a(2y - 1)`. They are orthonormal at as many
    points as functions with the rule "gauss_legendre"; at as many points at equal distances
    they are far from it."""

    def __call__(self, y: Points, number: int) -> Values:
        x = 2 * y - 1
        values = [jnp.ones_like(x), x]
        for a in range(1, number - 1):
            values.append(((2 * a + 1) * x * values[a] - a * values[a - 1]) / (a + 1))
        size = jnp.sqrt(2 * jnp.arange(number, dtype=y.dtype) + 1)
        return size[None] * jnp.stack(values[:number], axis=1)


@checked
class Nodal(AbstractBasis):
    """Functions that are constant on each of `number` equal parts, `φ_a = √number` on part a
    and 0 elsewhere. At the middles of the parts, coefficients are values and kernels the
    matrices of an ordinary Transformer; with r points in each part every feature is there r
    times. In a `FunctionSpace` the points are a multiple of the parts."""

    def __call__(self, y: Points, number: int) -> Values:
        part = jax.nn.one_hot(_parts(y, number), number, dtype=y.dtype)
        return jnp.sqrt(jnp.asarray(number, y.dtype)) * part

    def check(self, domain: FeatureDomain, number: int) -> None:
        sums = np.bincount(_parts(domain.points, number), domain.weights, number)
        if np.ptp(sums) > 1e-6 / number:
            raise InputError(
                f"Nodal: {domain.features} points of rule={domain.rule} give {number} equal "
                f"parts unequal weights; take a multiple of {number} points, or Cosine()."
            )


def _parts(y: Any, number: int) -> Any:
    """The number of the part in which each of the points is."""
    # The beginning of a part, j / number, may be rounded to below it.
    above = 1 + 4 * jnp.finfo(y.dtype).eps
    return (y * number * above).astype(int).clip(0, number - 1)


@checked
class Waves(AbstractBasis):
    """The Fourier series of functions on a circle: 1, `√2 sin 2πy`, `√2 cos 2πy`, `√2 sin 4πy`,
    …. An even number of them has more points than functions in a `FunctionSpace`."""

    def __call__(self, y: Points, number: int) -> Values:
        a = jnp.arange(number)
        angles = 2 * jnp.pi * jnp.outer(y, ((a + 1) // 2).astype(y.dtype))
        waves = jnp.where((a % 2 == 1)[None], jnp.sin(angles), jnp.cos(angles))
        size = jnp.where(a == 0, 1.0, jnp.sqrt(2.0))[None]
        return size.astype(y.dtype) * waves

    def check(self, domain: FeatureDomain, number: int) -> None:
        if domain.equal and number % 2 == 0 and number == domain.features:
            raise InputError(
                f"Waves: {number} functions at as many points, which cannot see the last wave; "
                "give more points than functions, a larger width."
            )


class FeatureMap(eqx.Module):
    """From the m coefficients of a function to its values at n points, and to its products
    with other functions.

    - `values`: P, `P_ja = φ_a(y_j) / √m`, at m points of equal weight an orthogonal matrix;
      `None` for the identity, of what is no function of y.
    - `duals`: R, `R_ja = √m w_j φ_a(y_j)`: `Σ_j R_ja v_j` is the coefficient a of values v.
    """

    values: Float[Array, "points modes"] | None
    duals: Float[Array, "points modes"] | None

    def of_values(self, c: Float[Array, "*batch modes"]) -> Float[Array, "*batch points"]:
        """`P c`: the values of functions with the coefficients c."""
        return c if self.values is None else c @ self.values.T.astype(c.dtype)

    def of_duals(self, c: Float[Array, "*batch modes"]) -> Float[Array, "*batch points"]:
        """`R c`: the factors of the values of another function v in `∫ c(y) v(y) dy`."""
        return c if self.duals is None else c @ self.duals.T.astype(c.dtype)

    def of_factors(self, c: Float[Array, " modes"]) -> Float[Array, " points"]:
        """`c̄ + P (c - c̄)`, c̄ the mean of c: a constant factor stays it."""
        mean = jnp.mean(c)
        return mean + self.of_values(c - mean)


# Of numbers that stand for no function, such as the values of a picture.
PLAIN = FeatureMap(None, None)


@checked
class FunctionSpace(eqx.Module):
    """Functions of a feature y, the span of the first functions of a basis, given at the points
    of Ω_y. States of an equation are then functions `u(x, y, t)` of both, weights are kernels

        W(y, ξ, t) = √(m_in / m_out) Σ_ab C_ab(t) φ_a(ξ) φ_b(y)

    from m_in coefficients to m_out (at as many points as modes C is the matrix of an ordinary
    Transformer), and the width of a state is a resolution: coefficients C of one shape give
    matrices for any number of points. The domain of a head, and of what is inside the
    feed-forward, has the same rule and as many points for each of its modes.

    **Arguments:**

    - `basis`: φ.
    - `modes`: the number of coefficients of a state.
    - `domain`: the points of Ω_y.
    """

    basis: AbstractBasis
    modes: PositiveInt = eqx.field(static=True)
    domain: FeatureDomain = eqx.field(static=True)

    def __check_init__(self):
        if self.modes > self.domain.features:
            raise InputError(
                f"FunctionSpace: modes={self.modes} functions at the fewer points of domain="
                f"{self.domain}; give at least as many points as modes."
            )
        self.basis.check(self.domain, self.modes)

    @property
    def features(self) -> FeatureMap:
        """The map of the coefficients of a state."""
        return self.inner(self.modes)

    def inner(self, modes: int) -> FeatureMap:
        """Map of the coefficients of functions that have so many of them."""
        domain = self.domain_of(modes)
        # Known when a program is compiled, so that products of them are folded.
        points = jnp.asarray(domain.points, jnp.result_type(float))
        weights = jnp.asarray(domain.weights, jnp.result_type(float))
        phi = self.basis(points, modes)
        size = jnp.sqrt(jnp.asarray(modes, phi.dtype))
        return FeatureMap(phi / size, size * weights[:, None] * phi)

    def heads(self, heads: int, modes: int) -> FeatureMap:
        """Map of functions on Ω_h × Ω_y: one for each head, with so many coefficients."""
        one = self.inner(modes)
        assert one.values is not None and one.duals is not None
        each = jnp.eye(heads, dtype=one.values.dtype)
        return FeatureMap(jnp.kron(each, one.values), jnp.kron(each, one.duals))

    def domain_of(self, modes: int) -> FeatureDomain:
        """The points of functions that have so many coefficients."""
        points, rest = divmod(modes * self.domain.features, self.modes)
        if rest:
            raise InputError(
                f"FunctionSpace: {self.domain.features} features for {self.modes} modes are no "
                f"whole number for {modes} modes, of a head, say; take a multiple of the modes."
            )
        domain = self.domain.with_points(points)
        self.basis.check(domain, modes)
        return domain

    def with_points(self, features: int) -> "FunctionSpace":
        """Give the functions another number of points."""
        return dataclasses.replace(self, domain=self.domain.with_points(features))
