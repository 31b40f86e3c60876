"""Schemes whose steps can be undone."""

import abc
from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
from jaxtyping import Array, Bool, PyTree

from .couplings import AbstractCoupling
from .scheme import AbstractFieldScheme
from .step import StepField


Couplings: TypeAlias = Callable[..., tuple[AbstractCoupling, ...]]


class AbstractReversible(AbstractFieldScheme):
    """A scheme whose step is made of couplings of the state and a companion, which at first
    is a copy of the state."""

    # Whether the companion is lost where the field jumps.
    restarts: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def couplings(
        self, field: StepField, first: Bool[Array, ""] | bool
    ) -> tuple[AbstractCoupling, ...]:
        """The couplings that make up a step, in order.

        **Arguments:**

        - `field`: the field over the step.
        - `first`: whether it is the first step.
        """


def find_couplings(solver: PyTree) -> Couplings | None:
    """The couplings of the steps of a scheme, `couplings(terms, t0, t1, args, first)`; `None`
    for one that cannot be undone."""
    own = getattr(solver, "couplings", None)
    if own is None:
        return None
    return lambda terms, t0, t1, args, first: own(StepField(terms, t0, t1, args), first)


def loses_companion(solver: PyTree) -> bool:
    """Whether a reversible scheme starts again where the field jumps."""
    return getattr(solver, "restarts", False)
