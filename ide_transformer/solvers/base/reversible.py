"""Schemes whose steps can be undone."""

import abc
from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
from jaxtyping import Array, Bool, PyTree

from ...equation import Depth
from .couplings import AbstractCoupling
from .scheme import AbstractFieldScheme


Couplings: TypeAlias = Callable[..., tuple[AbstractCoupling, ...]]


class AbstractReversible(AbstractFieldScheme):
    """A scheme whose step is made of couplings of the state and a companion, which at first
    is a copy of the state."""

    # Whether the companion is lost where the field jumps.
    restarts: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def couplings(
        self,
        terms: PyTree,
        t0: Depth,
        t1: Depth,
        args: PyTree,
        first: Bool[Array, ""] | bool,
    ) -> tuple[AbstractCoupling, ...]:
        """The couplings that make up the step from `t0` to `t1`, in order.

        **Arguments:**

        - `first`: whether it is the first step.
        """


def find_couplings(solver: PyTree) -> Couplings | None:
    """The couplings of the steps of a scheme; `None` for one that cannot be undone."""
    return getattr(solver, "couplings", None)


def loses_companion(solver: PyTree) -> bool:
    """Whether a reversible scheme starts again where the field jumps."""
    return getattr(solver, "restarts", False)
