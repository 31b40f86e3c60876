"""Signatures for griffe, which reads sources only: the constructors of `equinox.Module`s, and
functions that have the name of their file, such as `from .solve import solve`."""

from typing import Any, TypeVar

import griffe


M = TypeVar("M", griffe.Module, griffe.Class)


class HiddenFiles(griffe.Extension):
    """Points the names of other packages at the function, and not at its file."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for module in (pkg, *_inside(pkg, griffe.Module)):
            for member in module.members.values():
                if isinstance(member, griffe.Alias):
                    path = member.target_path
                    member.target_path = _function(pkg, path) or path


def _inside(module: griffe.Module, kind: type[M]) -> list[M]:
    """All modules, or all classes, in a module and in those inside it."""
    members = [x for x in module.members.values() if not x.is_alias]
    deeper = (y for x in members if isinstance(x, griffe.Module) for y in _inside(x, kind))
    return [*(x for x in members if isinstance(x, kind)), *deeper]


def _function(package: griffe.Module, path: str) -> str | None:
    """The function of the same name in the file at `path`, if it hides that file."""
    parts = path.removeprefix(f"{package.name}.").split(".")
    found: Any = package
    for part in parts:
        found = None if found is None or found.is_alias else found.members.get(part)
    if found is None or found.is_alias or not found.is_module or parts[-1] not in found.members:
        return None
    return f"{path}.{parts[-1]}"


class ModuleConstructors(griffe.Extension):
    """Gives each module without an `__init__` of its own that of a dataclass."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for found in [x for x in _inside(pkg, griffe.Class) if _is_module(x)]:
            _add_constructor(found)


def _lineage(found: griffe.Class) -> list[griffe.Class]:
    """The class and those of the package from which it derives, the most general first."""
    return [*reversed(found.mro()), found]


def _is_module(found: griffe.Class) -> bool:
    """Whether it is a module that can be made, and no class writes its constructor."""
    lineage = _lineage(found)
    bases = [str(base) for kind in lineage for base in kind.bases]
    derived = any(base.startswith(("eqx.", "diffrax.")) for base in bases)
    made = derived and not found.name.startswith("Abstract")
    return made and not any("__init__" in kind.members for kind in lineage)


def _add_constructor(found: griffe.Class) -> None:
    place = griffe.ParameterKind.positional_or_keyword
    parameters = {"self": griffe.Parameter("self", kind=place)}
    for kind in _lineage(found):
        passed = place
        for name, field in kind.members.items():
            if str(getattr(field, "annotation", "")).endswith("KW_ONLY"):
                passed = griffe.ParameterKind.keyword_only
            elif isinstance(field, griffe.Attribute) and _is_field(field):
                parameters[name] = griffe.Parameter(
                    name, annotation=field.annotation, kind=passed, default=_default(field)
                )
    ordered = sorted(parameters.values(), key=lambda x: x.kind is not place)
    constructor = griffe.Function(
        "__init__", parameters=griffe.Parameters(*ordered), parent=found
    )
    found.set_member("__init__", constructor)


def _is_field(field: griffe.Attribute) -> bool:
    kind = str(field.annotation).removeprefix("eqx.")
    of_the_class = kind.startswith(("ClassVar", "AbstractVar", "AbstractClassVar"))
    return "instance-attribute" in field.labels and not of_the_class


def _default(field: griffe.Attribute) -> Any:
    """The default of a field, also where `eqx.field(default=…)` gives it."""
    value = field.value
    if isinstance(value, griffe.ExprCall) and str(value.function) == "eqx.field":
        given = [x for x in value.arguments if isinstance(x, griffe.ExprKeyword)]
        return next((x.value for x in given if x.name == "default"), None)
    return value
