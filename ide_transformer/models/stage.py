"""The base class of the stages of a model."""

import abc
from typing import Any

from jaxtyping import Array, ArrayLike, Float, PyTree

from ..equation import TokenDomain
from .model import Model


class AbstractStage(Model):
    """A model that can be followed by another one: its states at depth T, on its domain, are
    the inputs of the next stage. See `StagedModel`."""

    @abc.abstractmethod
    def pass_on(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain
    ) -> PyTree[ArrayLike]:
        """The inputs of the next stage, from the state at depth T and its domain."""

    @property
    @abc.abstractmethod
    def next_sizes(self) -> dict[str, Any]:
        """The arguments of the next stage that this one decides, by their names."""

    @abc.abstractmethod
    def check_before(self, following: Model) -> None:
        """**Raises:** `InputError` where that stage cannot come next."""
