"""Schemes that draw something in training."""

from dataclasses import replace
from typing import TYPE_CHECKING

import diffrax
from jaxtyping import PRNGKeyArray

from .scheme import AbstractFieldScheme
from .wrapper import replace_schemes, schemes_inside


if TYPE_CHECKING:
    # A field with a default, so that it is no argument of the abstract class.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractRandomScheme(AbstractFieldScheme):
    """A scheme whose steps draw something from a `key`; without one they do not. A model gives
    it one for each solve of a training step, with that of its dropout."""

    key: AbstractVar[PRNGKeyArray | None]


def draws(solver: diffrax.AbstractSolver) -> bool:
    """Whether there is such a scheme inside a scheme, itself included."""
    return bool(schemes_inside(solver, AbstractRandomScheme))


def with_key(solver: diffrax.AbstractSolver, key: PRNGKeyArray) -> diffrax.AbstractSolver:
    """The scheme with a key for what it draws."""
    return replace_schemes(
        solver, AbstractRandomScheme, lambda scheme: replace(scheme, key=key)
    )
