"""Controls that are sums of smooth functions of depth."""

import abc
from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...arguments import PositiveFloat, PositiveInt, checked
from ...errors import InputError
from ..arrays import Depth
from .control import (
    AbstractControl,
    MakeBlock,
    arrays_of,
    combine,
    stack_blocks,
    stack_length,
    take,
    with_static,
)


class Tabulated(AbstractControl):
    """A smooth control, evaluated in advance at `fractions` of each interval."""

    table: PyTree
    fractions: tuple[float, ...] = eqx.field(static=True)
    interval_length: float = eqx.field(static=True)

    configurable: ClassVar[bool] = False
    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 2

    @property
    def layers(self) -> int:
        return stack_length(self, "table")

    def intervals(self) -> PyTree[Array]:
        return arrays_of(self.table)

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        points = jnp.asarray(np.array(self.fractions), jnp.result_type(float))
        nearest = 0 if len(points) == 1 else jnp.argmin(jnp.abs(points - s))
        return with_static(take(interval, nearest), self.table)

    def resample(self, layers: int) -> "Tabulated":
        raise NotImplementedError("a table only has the depths of its march")


# Chebyshev.build inverts a dense matrix of this size.
_MOST_TERMS = 10_000


class AbstractExpansion(AbstractControl):
    """A control that is smooth over all of `[0, T]`,

        θ(t) = Σ_k φ_k(t) Θ_k,

    with basis functions φ_k and coefficients Θ_k, a stack of blocks.
    """

    coefficients: PyTree

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 1

    def __check_init__(self):
        stack_length(self, "coefficients")

    @abc.abstractmethod
    def basis(self, t: Depth) -> Float[Array, " terms"]:
        """`φ_k(t)` for all k."""

    @property
    def terms(self) -> int:
        return stack_length(self, "coefficients")

    def intervals(self) -> PyTree[Array]:
        return jnp.arange(self.layers, dtype=float) * self.interval_length

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return self(interval + s * self.interval_length)

    def __call__(self, t: Depth) -> PyTree:
        return combine(self.basis(t), self.coefficients)

    def resample(self, layers: PositiveInt) -> "AbstractExpansion":
        length = self.horizon / layers
        return replace(self, layers=layers, interval_length=length)

    def tabulate(self, fractions: np.ndarray) -> Tabulated:
        starts = np.arange(self.layers)[:, None]
        depths = jnp.asarray((starts + fractions) * self.interval_length, float)
        table = combine(jax.vmap(jax.vmap(self.basis))(depths), self.coefficients)
        return Tabulated(table, tuple(fractions.tolist()), self.interval_length)


@checked
class Chebyshev(AbstractExpansion):
    """Weights that are polynomials in depth,

        θ(t) = Σ_{k<K} Θ_k T_k(2t/T - 1),   T_k the Chebyshev polynomials.

    **Arguments:**

    - `coefficients`: Θ, a block whose arrays have a leading axis of length K.
    - `layers`, `interval_length`: L, and the depth of one interval.
    """

    layers: PositiveInt = eqx.field(static=True)
    interval_length: PositiveFloat = eqx.field(static=True, default=1.0)

    def basis(self, t: Depth) -> Float[Array, " terms"]:
        return _polynomials(2 * jnp.asarray(t) / self.horizon - 1, self.terms)

    @classmethod
    @checked
    def build(
        cls,
        make_block: MakeBlock,
        layers: PositiveInt,
        *,
        terms: PositiveInt | None = None,
        key: PRNGKeyArray,
    ) -> "Chebyshev":
        """Draws a block at each of K = `terms` Chebyshev points (default: L) and interpolates
        them, so that weights are as large as in ordinary layers."""
        terms = layers if terms is None else terms
        if terms > _MOST_TERMS:
            raise InputError(f"Chebyshev: terms={terms:,} must be at most {_MOST_TERMS:,}.")
        nodes = np.cos(np.pi * (np.arange(terms) + 0.5) / terms)
        values = _polynomials(jnp.asarray(nodes), terms).T
        blocks = stack_blocks(make_block, terms, key)
        return cls(combine(jnp.linalg.inv(values), blocks), layers)


def _polynomials(x: Float[Array, "*points"], terms: int) -> Float[Array, "terms *points"]:
    """`T_0(x), …` by the recurrence `T_{k+1} = 2x T_k - T_{k-1}`, also outside [-1, 1]."""
    values = [jnp.ones_like(x), x]
    while len(values) < terms:
        values.append(2 * x * values[-1] - values[-2])
    return jnp.stack(values[:terms])


@checked
class Hypernetwork(AbstractExpansion):
    """Weights that a small network computes from the depth,

        θ(t) = Θ_0 + Σ_{1≤k<K} z_k(t) Θ_k,   z(t) = W2 silu(W1 e(t) + b1) + b2,

    e(t) sines and cosines of the depth. Reference: Tong et al., arXiv 2503.01329
    (DiffEqFormer).

    **Arguments:**

    - `coefficients`: Θ, a block whose arrays have a leading axis of length K.
    - `inner`, `outer`: W1 with b1 and W2 with b2, the bias as the last row.
    - `layers`, `interval_length`: L, and the depth of one interval.
    """

    inner: Float[Array, "embedding hidden"]
    outer: Float[Array, "inputs terms"]
    layers: PositiveInt = eqx.field(static=True)
    interval_length: PositiveFloat = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        embedding, hidden = self.inner.shape
        expected = hidden + 1, self.terms - 1
        if embedding % 2 == 0 or self.outer.shape != expected:
            raise InputError(
                f"Hypernetwork: inner has {embedding} rows, which must be odd; outer has shape "
                f"{self.outer.shape}, expected {expected} for {self.terms} coefficients."
            )

    def basis(self, t: Depth) -> Float[Array, " terms"]:
        t = jnp.asarray(t, self.inner.dtype) / self.horizon
        frequencies = np.pi * 2.0 ** np.arange((self.inner.shape[0] - 1) // 2)
        angles = t * jnp.asarray(frequencies, t.dtype)
        unit = jnp.ones(1, t.dtype)
        embedding = jnp.concatenate([jnp.sin(angles), jnp.cos(angles), unit])
        hidden = jnp.concatenate([jax.nn.silu(embedding @ self.inner), unit])
        return jnp.concatenate([unit, hidden @ self.outer])

    @classmethod
    @checked
    def build(
        cls,
        make_block: MakeBlock,
        layers: PositiveInt,
        *,
        hidden: PositiveInt = 32,
        frequencies: PositiveInt = 4,
        terms: PositiveInt | None = None,
        key: PRNGKeyArray,
    ) -> "Hypernetwork":
        """Draws Θ_0; the other Θ_k are differences of draws. So weights that are equal in all
        draws, such as a gain of 1, do not vary with depth.

        **Arguments:**

        - `hidden`, `frequencies`: the width of the network, and the frequencies in e(t).
        - `terms`: K; default L.
        """
        terms = layers if terms is None else terms
        block_key, inner_key, outer_key = jax.random.split(key, 3)

        def differences(x):
            if not eqx.is_inexact_array(x):
                return x
            return jnp.concatenate([x[:1], (x[1:] - x[:-1]) / 2**0.5])

        coefficients = jax.tree.map(differences, stack_blocks(make_block, terms, block_key))
        embedding = 2 * frequencies + 1
        inner = jax.random.normal(inner_key, (embedding, hidden)) / embedding**0.5
        outer = jax.random.normal(outer_key, (hidden + 1, terms - 1)) / (hidden + 1) ** 0.5
        return cls(coefficients, inner, outer, layers)
