"""YAML names of schemes and controls: those of their classes, in lower case.

A new scheme is found by its class; nothing is registered."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable

import diffrax

from .. import equation, solvers
from ..errors import InputError


def find_solver(key: str, name: str) -> type[diffrax.AbstractSolver]:
    """The explicit solver class that is called `name`, of this package or of diffrax.

    **Arguments:**

    - `key`: the configuration key that gave the name, for the error.
    """
    return _find(key, name, _is_explicit_scheme, (diffrax, solvers))


def find_control(key: str, name: str) -> type[equation.AbstractControl]:
    """The control class that is called `name` and can be trained from scratch."""
    return _find(key, name, _is_trainable_control, (equation,))


def _is_explicit_scheme(found: type) -> bool:
    """Neither implicit nor for stochastic equations nor a wrapper around a solver."""
    structures = (diffrax.AbstractTerm, diffrax.MultiTerm)
    return (
        issubclass(found, diffrax.AbstractSolver)
        and not issubclass(found, diffrax.AbstractImplicitSolver)
        and any(getattr(found, "term_structure", None) is s for s in structures)
    )


def _is_trainable_control(found: type) -> bool:
    return issubclass(found, equation.AbstractControl) and hasattr(found, "build")


def _find(key: str, name: str, fits: Callable[[type], bool], modules: Iterable) -> type:
    known = {
        _snake_case(label): found
        for module in modules
        for label, found in vars(module).items()
        if inspect.isclass(found) and not label.startswith("Abstract") and fits(found)
    }
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise InputError(f"{key}={name}: unknown.{hint} Known: {', '.join(sorted(known))}.")
    return known[name]


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
