"""Functions of a feature, and the kernels between them, at the points of Ω_y."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..arguments import PositiveInt
from ..errors import InputError
from .feature_domain import AbstractBasis, FeatureDomain


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
        """`c̄ + P (c - c̄)`, c̄ the mean of c: a factor that is the same for all features stays
        it."""
        mean = jnp.mean(c)
        return mean + self.of_values(c - mean)

    @property
    def of_queries(self) -> "FeatureMap":
        """The map whose values are R, for functions that meet others in an integral over y."""
        return FeatureMap(self.duals, self.duals)


# Of numbers that stand for no function, such as the values of a picture.
PLAIN = FeatureMap(None, None)


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

    **Raises:** `InputError` for more functions than points, for points that the basis refuses,
    and where a head, or the inside of the feed-forward, gets no whole number of points.
    """

    basis: AbstractBasis
    modes: PositiveInt = eqx.field(static=True)
    domain: FeatureDomain = eqx.field(static=True)

    def __check_init__(self):
        if self.modes > self.domain.features:
            raise InputError(
                f"FunctionSpace: modes={self.modes} functions at {self.domain.features} "
                "points, which cannot tell them apart; give at least as many points as modes."
            )
        self.basis.check(self.domain, self.modes)

    @property
    def features(self) -> FeatureMap:
        """The map of the coefficients of a state."""
        return self._map(self.modes, self.domain)

    def inner(self, modes: int) -> FeatureMap:
        """Map of the coefficients of functions on another domain, with so many of them."""
        return self._map(modes, self.domain_of(modes))

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
                f"FunctionSpace: {self.domain.features} features for {self.modes} modes give "
                f"{modes * self.domain.features / self.modes:g} points to functions of {modes} "
                "modes, those of a head or of the feed-forward; choose a multiple of the modes."
            )
        domain = self.domain.with_points(points)
        self.basis.check(domain, modes)
        return domain

    def with_points(self, features: int) -> "FunctionSpace":
        """Give the functions another number of points."""
        return dataclasses.replace(self, domain=self.domain.with_points(features))

    def _map(self, modes: int, domain: FeatureDomain) -> FeatureMap:
        # Known when a program is compiled, so that products of them are folded.
        points, weights = (
            jnp.asarray(x, jnp.result_type(float)) for x in (domain.points, domain.weights)
        )
        phi = self.basis(points, modes)
        size = jnp.sqrt(jnp.asarray(modes, phi.dtype))
        return FeatureMap(phi / size, size * weights[:, None] * phi)
