"""Base class of the schemes with weights of their own for each step."""

import abc
from typing import ClassVar

import diffrax

from ...errors import InputError
from ..base.scheme import AbstractScheme
from ..base.step import Terms


class AbstractConnected(AbstractScheme):
    """A scheme with learned weights for each step. They belong to their step: there is no limit
    of small steps, and no order."""

    consistent: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """The steps for which it has weights; a solve of more is refused."""

    def order(self, terms: Terms) -> None:
        return None

    def projected(self) -> diffrax.AbstractSolver:
        """**Raises:** `InputError`: by default the states that are connected are on no
        constraint."""
        raise InputError(
            f"{type(self).__name__}: the states that it connects are on no constraint, so the "
            "equation needs constraint=Free(); or take LearnedMultistep, whose steps are "
            "projected."
        )
