"""Functions that have the name of the file in which they stand: `from .solve import solve`
hides the file `solve.py`, and griffe, that reads sources only, takes the file for the
function."""

from typing import Any

import griffe


class HiddenFiles(griffe.Extension):
    """Points the names of other packages at the function, and not at its file."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for module in _modules(pkg):
            for member in module.members.values():
                if isinstance(member, griffe.Alias):
                    path = member.target_path
                    member.target_path = _function(pkg, path) or path


def _modules(module: griffe.Module) -> list[griffe.Module]:
    inside = [x for x in module.members.values() if isinstance(x, griffe.Module)]
    return [module, *(y for x in inside for y in _modules(x))]


def _function(package: griffe.Module, path: str) -> str | None:
    """The function of the same name in the file at `path`, if it hides that file."""
    parts = path.removeprefix(f"{package.name}.").split(".")
    found: Any = package
    for part in parts:
        found = None if found is None or found.is_alias else found.members.get(part)
    if found is None or found.is_alias or not found.is_module or parts[-1] not in found.members:
        return None
    return f"{path}.{parts[-1]}"
