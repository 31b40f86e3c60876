"""Constructors of modules, which griffe cannot read from sources."""

import re

import griffe


class Modules(griffe.Extension):
    """Marks each `equinox.Module` as a dataclass, so that griffe writes its constructor."""

    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        for griffe_class in _classes(pkg):
            lineage = [griffe_class, *griffe_class.mro()]
            bases = [str(base) for kind in lineage for base in kind.bases]
            is_module = any(base.startswith(("eqx.", "diffrax.")) for base in bases)
            if not is_module or any("__init__" in kind.members for kind in lineage):
                continue
            name = griffe.ExprName("dataclasses.dataclass")
            griffe_class.decorators.append(griffe.Decorator(name, lineno=None, endlineno=None))
            for field in griffe_class.attributes.values():
                value = field.value
                if re.search("ClassVar|AbstractVar", str(field.annotation)):
                    field.labels.add("class-attribute")
                    field.labels.discard("instance-attribute")
                elif isinstance(value, griffe.ExprCall) and str(value.function) == "eqx.field":
                    value.function = griffe.ExprName("dataclasses.field")


def _classes(part: griffe.Object | griffe.Alias) -> list[griffe.Class]:
    """All classes in a module or class, itself included."""
    inside = [y for x in part.members.values() if not x.is_alias for y in _classes(x)]
    return [part, *inside] if isinstance(part, griffe.Class) else inside
