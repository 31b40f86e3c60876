"""What a constraint set must offer."""

import abc
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PyTree


class AbstractConstraint(eqx.Module):
    """A closed set S of states; its indicator enters the equation as

        u_t = F(u) + ∂I_S(u),

    whose solution stays on S and moves with the tangential part of F.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    @abc.abstractmethod
    def project(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        """The state of S that takes the place of `u`, token by token."""

    @abc.abstractmethod
    def tangent(
        self, u: Float[Array, "*batch features"], du: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch features"]:
        """`d/dε project(u + ε du)` at `ε = 0+`: the part of `du` that S leaves free."""

    @abc.abstractmethod
    def residual(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """How far each token is from S; zero exactly on it."""


class AbstractRescaling(AbstractConstraint):
    """A constraint whose projection shifts and scales each token and loses nothing else, so
    that the shift and the scale undo it."""

    @abc.abstractmethod
    def scales(self, u: Float[Array, "*batch features"]) -> PyTree[Float[Array, "*batch 1"]]:
        """What `project(u)` loses of each token."""

    @abc.abstractmethod
    def unproject(
        self,
        projected: Float[Array, "*batch features"],
        scales: PyTree[Float[Array, "*batch 1"]],
    ) -> Float[Array, "*batch features"]:
        """`u`, from `project(u)` and `scales(u)`."""
