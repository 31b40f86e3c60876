"""The feature domain Ω_y: points, weights, and bases of functions on it."""

import abc
import dataclasses
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arguments import PositiveInt
from ..errors import InputError
from .rules import PointRule, point_rule


Points: TypeAlias = Float[Array, " points"]
Values: TypeAlias = Float[Array, "points number"]


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
            raise InputError(
                "FeatureDomain: clenshaw_curtis takes both ends; give features=2 or more."
            )

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
    """Functions φ_0, φ_1, … on Ω_y = [0, 1], orthonormal: `∫ φ_a φ_b dy = δ_ab`. Arrays among
    the fields of a subclass are trained with the coefficients."""

    @abc.abstractmethod
    def __call__(self, y: Points, number: int) -> Values:
        """The values of the first `number` functions at points y."""

    def check(self, domain: FeatureDomain, number: int) -> None:
        """Refuses points at which so many functions would be others than at more points."""


class Cosine(AbstractBasis):
    """`φ_0 = 1`, `φ_a(y) = √2 cos(aπy)`: smooth functions, whose values at both ends are free.
    At as many midpoints as functions this is the discrete cosine transform, an orthogonal
    matrix. Here the midpoint rule is of more than second order: a cosine series is even about
    both ends, so that they are no ends for it.
    """

    def __call__(self, y: Points, number: int) -> Values:
        a = jnp.arange(number)
        size = jnp.where(a == 0, 1.0, jnp.sqrt(2.0))[None]
        return size.astype(y.dtype) * jnp.cos(jnp.pi * jnp.outer(y, a.astype(y.dtype)))


class Legendre(AbstractBasis):
    """Legendre's polynomials, `φ_a(y) = √(2a+1) P_a(2y - 1)`. They are orthonormal at as many
    points as functions with the rule "gauss_legendre"; at as many points at equal distances
    they are far from it.
    """

    def __call__(self, y: Points, number: int) -> Values:
        x = 2 * y - 1
        values = [jnp.ones_like(x), x]
        for a in range(1, number - 1):
            values.append(((2 * a + 1) * x * values[a] - a * values[a - 1]) / (a + 1))
        size = jnp.sqrt(2 * jnp.arange(number, dtype=y.dtype) + 1)
        return size[None] * jnp.stack(values[:number], axis=1)


class Nodal(AbstractBasis):
    """Functions that are constant on each of `number` equal parts, `φ_a = √number` on part a
    and 0 elsewhere. At the middles of the parts, coefficients are values and kernels the
    matrices of an ordinary Transformer; with r points in each part every feature is there r
    times. In a `FunctionSpace` the points are a multiple of the parts."""

    def __call__(self, y: Points, number: int) -> Values:
        part = _parts(y, number)
        return jnp.sqrt(jnp.asarray(number, y.dtype)) * jax.nn.one_hot(
            part, number, dtype=y.dtype
        )

    def check(self, domain: FeatureDomain, number: int) -> None:
        sums = np.bincount(_parts(domain.points, number), domain.weights, number)
        if np.ptp(sums) > 1e-6 / number:
            raise InputError(
                f"Nodal: {domain.features} points of the rule {domain.rule} give {number} "
                f"equal parts unequal weights, from {sums.min():.3g} to {sums.max():.3g}; take "
                f"a multiple of {number} points of the rule midpoint, or Cosine() for any "
                "number."
            )


def _parts(y: Any, number: int) -> Any:
    """The number of the part in which each of the points is."""
    # The beginning of a part, j / number, may be rounded to below it.
    above = 1 + 4 * jnp.finfo(y.dtype).eps
    return (y * number * above).astype(int).clip(0, number - 1)


class Warped(AbstractBasis):
    """Cosines of a coordinate that is learned,

        φ_a(y) = √g'(y) c_a(g(y)),   g(y) = y + Σ_k s_k sin(kπy) / (kπ),

    c_a those of `Cosine`, and `s_k = 0.9 tanh(θ_k) / waves`, so that g' is positive. They are
    orthonormal whatever θ is. Where g' is large, functions change fast. At θ = 0, where it
    starts, it is `Cosine`.

    **Arguments:**

    - `waves`: the number of θ_k.
    """

    theta: Float[Array, " waves"]

    def __init__(self, waves: PositiveInt = 4):
        self.theta = jnp.zeros(waves)

    def __call__(self, y: Points, number: int) -> Values:
        waves = len(self.theta)
        k = jnp.pi * jnp.arange(1, waves + 1, dtype=y.dtype)
        size = (0.9 / waves * jnp.tanh(self.theta)).astype(y.dtype)
        angles = jnp.outer(y, k)
        warped = y + jnp.sin(angles) @ (size / k)
        slope = 1 + jnp.cos(angles) @ size
        return jnp.sqrt(slope)[:, None] * Cosine()(warped, number)


class Waves(AbstractBasis):
    """1, `√2 sin 2πy`, `√2 cos 2πy`, `√2 sin 4πy`, …: the Fourier series of functions on a
    circle. An even number of them has more points than functions in a `FunctionSpace`."""

    def __call__(self, y: Points, number: int) -> Values:
        a = jnp.arange(number)
        angles = 2 * jnp.pi * jnp.outer(y, ((a + 1) // 2).astype(y.dtype))
        waves = jnp.where((a % 2 == 1)[None], jnp.sin(angles), jnp.cos(angles))
        size = jnp.where(a == 0, 1.0, jnp.sqrt(2.0))[None]
        return size.astype(y.dtype) * waves

    def check(self, domain: FeatureDomain, number: int) -> None:
        if domain.equal and number % 2 == 0 and number == domain.features:
            raise InputError(
                f"Waves: {number} functions at as many points, which see the last wave only at "
                "its ends or its zeros; give more points than functions, a larger width."
            )
