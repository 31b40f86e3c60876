"""Base class of the schemes with weights of their own for each step."""

import abc
from typing import ClassVar

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
