"""Benchmarks: each file here is one command of scripts/benchmark.py."""

import importlib
import pkgutil
from collections.abc import Iterator

from .shared.command import Command


def commands() -> Iterator[Command]:
    """The `COMMAND` of each file in this folder."""
    for module in pkgutil.iter_modules(__path__):
        if not module.ispkg:
            yield importlib.import_module(f"{__name__}.{module.name}").COMMAND
