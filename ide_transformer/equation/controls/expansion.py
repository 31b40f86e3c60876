"""The base class of controls that expand θ(t) in smooth functions of depth."""

import abc
from dataclasses import replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ...errors import InputError
from ..shapes import Depth
from .control import AbstractControl, check_resample
from .stack import check_stack, combine
from .tabulated import Tabulated


# The terms are written out in the program and solved for by a dense matrix.
_MOST_TERMS = 10_000


def check_terms(control: str, name: str, terms: int) -> None:
    """Refuses an expansion in more terms than can be written out."""
    if terms > _MOST_TERMS:
        raise InputError(
            f"{control}: {name} make {terms:,} terms; it has at most {_MOST_TERMS:,}. For "
            "more, take PiecewiseLinear."
        )


class AbstractExpansion(AbstractControl):
    """A control that is smooth over all of `[0, T]`,

        θ(t) = Σ_k φ_k(t) Θ_k,

    with basis functions φ_k and coefficients Θ_k, blocks stacked along a leading axis.
    """

    coefficients: PyTree

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 1

    def __check_init__(self):
        check_stack(self, self.coefficients)

    @abc.abstractmethod
    def basis(self, t: Depth) -> Float[Array, " terms"]:
        """`φ_k(t)` for all k."""

    @property
    def terms(self) -> int:
        """The number of terms."""
        return check_stack(self, self.coefficients)

    def intervals(self) -> PyTree[Array]:
        return jnp.arange(self.num_intervals, dtype=float) * self.interval_length

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return self(interval + s * self.interval_length)

    def __call__(self, t: Depth) -> PyTree:
        return combine(self.basis(t), self.coefficients)

    def resample(self, num_intervals: int) -> "AbstractExpansion":
        length = check_resample(self, num_intervals)
        return replace(self, num_intervals=num_intervals, interval_length=length)

    def tabulate(self, fractions: np.ndarray) -> Tabulated:
        starts = np.arange(self.num_intervals)[:, None]
        depths = jnp.asarray((starts + fractions) * self.interval_length, float)
        table = combine(jax.vmap(jax.vmap(self.basis))(depths), self.coefficients)
        return Tabulated(table, tuple(fractions.tolist()), self.interval_length)
