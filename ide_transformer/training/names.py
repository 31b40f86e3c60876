"""YAML names of schemes and controls: those of their classes, in lower case.

A new scheme is found by its class; nothing is registered."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import diffrax

from .. import equation, integration, solvers
from ..errors import InputError


def find_solver(key: str, name: str) -> Callable[..., diffrax.AbstractSolver]:
    """What makes the scheme that is called `name`: a class of this package or of diffrax, or
    a function of this package.

    **Arguments:**

    - `key`: the configuration key that gave the name, for the error.
    """
    return _find(key, name, _makes_scheme, (diffrax, solvers))


def find_control(key: str, name: str) -> type[equation.AbstractControl]:
    """The control class that is called `name` and can be trained from scratch."""
    return _find(key, name, _is_trainable_control, (equation,))


def find_constraint(key: str, name: str) -> type[equation.AbstractConstraint]:
    """The constraint class that is called `name`."""
    return _find(key, name, _is_constraint, (equation,))


def find_gradient(key: str, name: str) -> type[integration.AbstractGradient]:
    """The gradient mode that is called `name`."""
    return _find(key, name, _is_gradient, (integration,))


def _is_gradient(found: Any) -> bool:
    return inspect.isclass(found) and issubclass(found, integration.AbstractGradient)


def _makes_scheme(found: Any) -> bool:
    """Not schemes for stochastic equations or for pairs of states, whose terms differ, and
    not those that the package puts in by itself."""
    if inspect.isfunction(found):
        made = inspect.signature(found).return_annotation
        return made in vars(solvers).values()
    if not inspect.isclass(found) or not issubclass(found, diffrax.AbstractSolver):
        return False
    if found in (solvers.Projected, solvers.MatrixFree, solvers.ExplicitRungeKutta):
        return False
    if issubclass(found, diffrax.AbstractWrappedSolver):
        return True
    if found in (solvers.SteadyState, solvers.AlgebraicallyReversible):
        return True
    structures = (diffrax.AbstractTerm, diffrax.MultiTerm)
    return any(found.term_structure is s for s in structures)


def _is_constraint(found: Any) -> bool:
    return inspect.isclass(found) and issubclass(found, equation.AbstractConstraint)


def _is_trainable_control(found: Any) -> bool:
    return (
        inspect.isclass(found)
        and issubclass(found, equation.AbstractControl)
        and hasattr(found, "build")
    )


def check_options(key: str, options: dict[str, Any], call: Callable, own: set[str]) -> None:
    """Refuses options that `call` does not take.

    **Arguments:**

    - `own`: arguments of `call` that are given otherwise.
    """
    known = set(inspect.signature(call).parameters) - own
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            listed = ", ".join(sorted(known)) or "none"
            raise InputError(f"{key}.{name}: unknown option.{hint} Known here: {listed}.")


def _find(key: str, name: str, fits: Callable[[Any], bool], modules: Iterable) -> Any:
    known = {
        _snake_case(label): found
        for module in modules
        for label, found in vars(module).items()
        if not label.startswith("Abstract") and fits(found)
    }
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise InputError(f"{key}={name}: unknown.{hint} Known: {', '.join(sorted(known))}.")
    return known[name]


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
