"""Sets on which states are kept, and the maps of checkpoints."""

import abc
from typing import ClassVar, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..function_space import FunctionSpace
from ..shapes import Features


class AbstractConstraint(eqx.Module):
    """A closed set S of states; its indicator enters the equation as

        u_t = F(u) + ∂I_S(u),

    whose solution stays on S and moves with the tangential part of F.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    @abc.abstractmethod
    def project(self, u: Features) -> Features:
        """The state of S that takes the place of `u`, token by token: for the spheres the
        nearest one in the metric of their gain."""

    @abc.abstractmethod
    def tangent(self, u: Features, du: Features) -> Features:
        """`d/dε project(u + ε du)` at `ε = 0+`: the part of `du` that S leaves free."""

    @abc.abstractmethod
    def residual(self, u: Features) -> Float[Array, "*batch"]:
        """The distance of each token from S; zero exactly on it."""

    def at_points(self, space: FunctionSpace) -> "AbstractConstraint":
        """The constraint on functions of a space, at its points, of which the arrays of this
        one are coefficients; by default the same."""
        return self


# The shift and the scale of each token.
Scales: TypeAlias = PyTree[Float[Array, "*batch 1"]]


class AbstractRescaling(AbstractConstraint):
    """A constraint whose projection shifts and scales each token and loses nothing else, so
    that the shift and the scale undo it."""

    @abc.abstractmethod
    def scales(self, u: Features) -> Scales:
        """The shift and the scale, which `project(u)` loses."""

    @abc.abstractmethod
    def unproject(self, projected: Features, scales: Scales) -> Features:
        """`u`, from `project(u)` and `scales(u)`."""


class Free(AbstractRescaling):
    """No constraint: S is the whole space, `u_t = F(u)`. As a normalisation: none."""

    def project(self, u: Features) -> Features:
        return u

    def tangent(self, u: Features, du: Features) -> Features:
        return du

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        return abs(u[..., 0]) * 0

    def scales(self, u: Features) -> Scales:
        return ()

    def unproject(self, projected: Features, scales: Scales) -> Features:
        return projected


class Nonnegative(AbstractConstraint):
    """The set S2 = { u : u ≥ 0 } of the paper; its projection is the ReLU.

    S2 does not meet S1 with σ1 = 0: never impose both on one state. The ReLU of a
    feed-forward acts inside the field, on the features of `FeedForward`.
    """

    def project(self, u: Features) -> Features:
        return jax.nn.relu(u)

    def tangent(self, u: Features, du: Features) -> Features:
        return jnp.where(u > 0, du, jnp.where(u < 0, 0, jax.nn.relu(du)))

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        return jnp.max(jax.nn.relu(-u), axis=-1)
