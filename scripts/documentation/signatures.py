"""An extension of griffe, which reads sources only: an `equinox.Module` is a dataclass, and
functions that build models have the arguments of their parts."""

import importlib
import inspect
import re

import griffe


class Modules(griffe.Extension):
    """Marks modules as dataclasses, whose constructors griffe writes."""

    def on_function_instance(self, *, func: griffe.Function, **_) -> None:
        if not any(str(x.value).startswith("_builds(") for x in func.decorators):
            return
        built = getattr(importlib.import_module(func.module.path), func.name)
        func.docstring = griffe.Docstring(inspect.getdoc(built) or "", parent=func)
        func.parameters = griffe.Parameters(
            *(
                griffe.Parameter(
                    x.name,
                    annotation=re.sub(r"[\w.]+\.", "", inspect.formatannotation(x.annotation)),
                    kind=griffe.ParameterKind[x.kind.name.lower()],
                    default=None if x.default is x.empty else repr(x.default),
                )
                for x in inspect.signature(built).parameters.values()
            )
        )

    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        for griffe_class in _classes(pkg):
            lineage = [griffe_class, *griffe_class.mro()]
            bases = [str(base) for kind in lineage for base in kind.bases]
            module = any(base.startswith(("eqx.", "diffrax.")) for base in bases)
            if not module or any("__init__" in kind.members for kind in lineage):
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


def _classes(place: griffe.Object | griffe.Alias) -> list[griffe.Class]:
    inside = [y for x in place.members.values() if not x.is_alias for y in _classes(x)]
    return [place, *inside] if isinstance(place, griffe.Class) else inside
