"""What the controls share that expand θ(t) in smooth functions of depth."""

import abc
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..depth import Depth
from .control import AbstractControl
from .tabulated import Tabulated


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractExpansion(AbstractControl):
    """A control that is smooth over all of `[0, T]`,

        θ(t) = Σ_k φ_k(t) Θ_k,

    with basis functions φ_k and coefficients Θ_k, blocks stacked along a leading axis.
    """

    coefficients: AbstractVar[PyTree]

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 1

    @abc.abstractmethod
    def basis(self, t: Depth) -> Float[Array, " terms"]:
        """`φ_k(t)` for all k."""

    @property
    def depth(self) -> float:
        """T, in layers."""
        return self.num_intervals * self.interval_length

    def intervals(self) -> PyTree[Array]:
        return jnp.arange(self.num_intervals, dtype=float) * self.interval_length

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return self(interval + s * self.interval_length)

    def __call__(self, t: Depth) -> PyTree:
        return self._combine(self.basis(t))

    def tabulate(self, fractions: np.ndarray) -> Tabulated:
        starts = np.arange(self.num_intervals)[:, None]
        depths = jnp.asarray((starts + fractions) * self.interval_length, float)
        table = self._combine(jax.vmap(jax.vmap(self.basis))(depths))
        return Tabulated(table, tuple(fractions.tolist()), self.interval_length)

    def _combine(self, basis: Float[Array, "*points terms"]) -> PyTree:
        """`Σ_k φ_k Θ_k` at any number of depths at once."""
        return jax.tree.map(
            lambda x: (
                jnp.tensordot(basis.astype(x.dtype), x, axes=1)
                if eqx.is_inexact_array(x)
                else x
            ),
            self.coefficients,
        )


def interpolate(basis: Float[Array, "nodes terms"], blocks: PyTree) -> PyTree:
    """The coefficients with which the expansion takes the values `blocks` at the nodes.

    **Arguments:**

    - `basis`: `φ_k` at each node; as many nodes as terms.
    - `blocks`: a block for each node, stacked.
    """
    inverse = jnp.linalg.inv(basis)
    return jax.tree.map(
        lambda x: (
            jnp.tensordot(inverse.astype(x.dtype), x, axes=1) if eqx.is_inexact_array(x) else x
        ),
        blocks,
    )
