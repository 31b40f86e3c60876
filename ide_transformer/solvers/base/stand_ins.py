"""Operators that record the depths at which they are evaluated."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array, Float, PyTree

from ...equation import (
    AbstractExactOperator,
    AbstractLinearOperator,
    AbstractOperator,
    Depth,
    TokenDomain,
)


class Recorder:
    """The depths of the evaluations so far."""

    def __init__(self):
        self.depths: list[float] = []

    def evaluate(self, u: Array, t: Array) -> Array:
        """A rate at depth `t`, recorded when it is run, also inside the loops of diffrax."""
        return io_callback(self._record, jax.ShapeDtypeStruct(u.shape, u.dtype), u, t)

    def _record(self, u: Any, t: Any) -> np.ndarray:
        # In NumPy: a callback that waits for JAX could wait for itself.
        self.depths.append(float(np.asarray(t)))
        return -np.asarray(u)


class _Plain(AbstractOperator):
    t: Float[Array, ""]
    recorder: Recorder = eqx.field(static=True)

    def __call__(self, u: Array, domain: TokenDomain) -> Array:
        return self.recorder.evaluate(u, self.t)


class _Exact(_Plain, AbstractExactOperator):
    dissipative = False

    def flow(self, u: Array, domain: TokenDomain, h: Depth) -> Array:
        return self.recorder.evaluate(u, self.t)


class _Linear(_Exact, AbstractLinearOperator):
    def apply(self, function: Callable[[Array], Array], u: Array, domain: TokenDomain) -> Array:
        return function(-jnp.ones(())) * u


# The abstract class that decides how schemes treat an operator, and its stand-in.
_STAND_INS: dict[type, type] = {
    AbstractLinearOperator: _Linear,
    AbstractExactOperator: _Exact,
    AbstractOperator: _Plain,
}


def kind_of_operator(operator: PyTree) -> type:
    """The class of `_STAND_INS` that an operator is of."""
    kinds = (kind for kind in type(operator).__mro__ if kind in _STAND_INS)
    return next(kinds, AbstractOperator)


def stand_in(name: str, kind: type) -> type:
    """A class of operators of this kind, `operator(t, recorder)`. It has the name of the
    operator that it stands for, which a scheme that refuses it would print."""
    metaclass: Any = type(_Plain)
    return metaclass(name, (_STAND_INS[kind],), {})
