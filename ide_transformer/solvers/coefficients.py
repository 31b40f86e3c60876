"""Coefficients of schemes that are learned: numbers kept inside their range."""

import abc
import math
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree, Real

from ..equation import Depth
from ..errors import InputError


# A number, or lists of numbers.
Numbers: TypeAlias = Real[ArrayLike, "..."] | list


class AbstractCoefficient(eqx.Module):
    """A learned coefficient: one for all depths and operators, `[]`, or one for each
    operator, `[operators]`, or also for each layer, `[layers, operators]`."""

    raw: eqx.AbstractVar[Float[Array, "..."]]

    @property
    @abc.abstractmethod
    def value(self) -> Float[Array, "..."]:
        """The coefficient inside its range."""

    def __call__(self, t: Depth, index: int) -> Float[Array, ""]:
        """Its value for operator `index` at depth `t`."""
        value = self.value
        if value.ndim == 2:
            layer = jnp.clip(jnp.floor(jnp.asarray(t)), 0, value.shape[0] - 1)
            value = value[layer.astype(int)]
        return value[index] if value.ndim else value

    def check_operators(self, name: str, number: int) -> None:
        """Refuse another number of operators than it has values for."""
        if self.raw.ndim and self.raw.shape[-1] != number:
            raise InputError(
                f"{name} has shape {self.raw.shape}, but there are {number} operators; give "
                "one number, one for each operator, or a list of these, one for each layer."
            )

    def check_layers(self, name: str, horizon: float) -> None:
        """Refuse another number of layers than it has values for."""
        if self.raw.ndim == 2 and self.raw.shape[0] != math.ceil(horizon):
            raise InputError(
                f"{name}: a coefficient has shape {self.raw.shape}, for {self.raw.shape[0]} "
                f"layers, but the equation is solved to depth T={horizon:g}; give a row for "
                f"each unit of depth, or one number."
            )


class UnitInterval(AbstractCoefficient):
    """A coefficient in [0, 1): `raw² / (1 + raw²)`. Of 0 the derivative is 0, so it is not
    learned."""

    raw: Float[Array, "..."]

    def __init__(self, value: Numbers, name: str):
        value = _numbers(value, name)
        _check(name, value, (value >= 0) & (value < 1), "lie in [0, 1); 1 is not stable")
        self.raw = jnp.sqrt(value / (1 - value))

    @property
    def value(self) -> Float[Array, "..."]:
        return self.raw**2 / (1 + self.raw**2)


class Positive(AbstractCoefficient):
    """A coefficient above 0: `softplus(raw)`."""

    raw: Float[Array, "..."]

    def __init__(self, value: Numbers, name: str):
        value = _numbers(value, name)
        _check(name, value, (value > 0) & np.isfinite(value), "be positive")
        self.raw = jnp.asarray(value) + jnp.log(-jnp.expm1(-value))

    @property
    def value(self) -> Float[Array, "..."]:
        return jax.nn.softplus(self.raw)


def learned(solver: PyTree) -> dict[str, Float[Array, ""]]:
    """The learned quantities of a solver, by name: the mean of each coefficient, and the root
    mean square of other weights such as those of a gate."""
    found = {}
    leaves = jax.tree_util.tree_leaves_with_path(
        solver, is_leaf=lambda x: isinstance(x, AbstractCoefficient)
    )
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if isinstance(leaf, AbstractCoefficient):
            found[name] = jnp.mean(leaf.value)
        elif eqx.is_inexact_array(leaf):
            found[name] = jnp.sqrt(jnp.mean(leaf**2))
    return found


def _check(name: str, value: np.ndarray, holds: np.ndarray | np.bool, wanted: str) -> None:
    if not np.all(holds):
        text = np.array2string(value, separator=", ")
        raise InputError(f"{name}={text}: it must {wanted}.")


def _numbers(value: Numbers, name: str) -> Float[np.ndarray, "..."]:
    try:
        value = np.asarray(value, jnp.result_type(float))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={value!r}: {error}") from None
    if value.ndim > 2 or not value.size:
        raise InputError(
            f"{name} has shape {value.shape}; give one number, one for each operator, or a "
            "list of these, one for each layer."
        )
    return value
