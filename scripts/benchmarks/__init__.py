"""Benchmarks: the files here have the commands of scripts/benchmark.py."""

import importlib
import pkgutil
from collections.abc import Iterator

from .shared.command import Command


def commands() -> Iterator[Command]:
    """The commands of each file in this folder."""
    for module in pkgutil.iter_modules(__path__):
        if not module.ispkg:
            found = vars(importlib.import_module(f"{__name__}.{module.name}")).values()
            yield from (value for value in found if isinstance(value, Command))
