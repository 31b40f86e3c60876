from typing import Any

from ..equation import AbstractConstraint, AbstractControl


def any_constraint(constraint: AbstractConstraint | AbstractControl) -> AbstractControl:
    """The type of a field that takes either, and that `as_control` then makes a control."""
    given: Any = constraint
    return given
