"""The list of attacks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


# Nested deeper than any reader of JSON goes.
DEEP = "[" * 100_000


class Attack(NamedTuple):
    """Writes files into a folder; gives the path that an error has to name, and a call that
    reads them."""

    write: Callable[..., tuple[Path, Callable[[], Any]]]
    case: tuple[str, ...]


ATTACKS: dict[str, Attack] = {}


def attack(*cases):
    """One attack for each case, named after the function and the case."""

    def register(function):
        for case in cases:
            ATTACKS[f"{function.__name__}: {case}"] = Attack(function, (case,))
        if not cases:
            ATTACKS[function.__name__] = Attack(function, ())
        return function

    return register
