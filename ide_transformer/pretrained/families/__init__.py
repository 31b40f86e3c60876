"""Families of checkpoints. Each file has a table `FAMILIES` of related ones."""

import functools as ft
import importlib
import pkgutil
from importlib.metadata import entry_points

from ..family import Family


@ft.cache
def families() -> dict[str, Family]:
    """All families by `model_type`: the tables of this folder and of the entry points
    `ide_transformer.families`."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    tables = [importlib.import_module(f"{__name__}.{name}").FAMILIES for name in names]
    tables += [x.load() for x in entry_points(group="ide_transformer.families")]
    return {kind: family for table in tables for kind, family in table.items()}
