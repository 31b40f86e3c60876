"""JSON schemas of configurations, by which editors complete keys and mark mistakes."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import diffrax

from ...arguments import Bound
from ...integration import Mesh
from .names import (
    KINDS,
    activations,
    classes_by_name,
    is_array,
    kind_of,
    parameters_of,
    plugins,
)
from .reader import Spec
from .section import AbstractChoice, PartOf, Section, as_plain, default_of


Schema = dict[str, Any]

_CODE = {"type": "string", "pattern": r"^[\w.]+:\w+$"}
_PLAIN: dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Path: {"type": "string"},
    list: {"type": "array"},
    dict: {"type": "object"},
    NoneType: {"type": "null"},
}
_NUMBERS = {
    "anyOf": [{"type": "number"}, {"type": "array", "items": {"$ref": "#/definitions/numbers"}}]
}


def schema_of(*kinds: type[Section]) -> Schema:
    """The JSON schema of a file that holds a section of one of these kinds, with the parts of
    installed packages. It does not know what depends on other keys or on data."""
    definitions = Definitions()
    references = [definitions.section(kind) for kind in kinds]
    return {
        # Editors know this version; in it a reference stands alone.
        "$schema": "http://json-schema.org/draft-07/schema#",
        **(references[0] if len(kinds) == 1 else {"oneOf": references}),
        "definitions": definitions,
    }


def describe(part: Any) -> tuple[str, dict[str, str]]:
    """The description of a class or a function, and of each of its arguments, from its
    docstring."""
    documentation = inspect.getdoc(part) or ""
    about = documentation.partition("\n\n")[0]
    descriptions = {}
    for base in reversed(inspect.getmro(part) if inspect.isclass(part) else [part]):
        documentation = inspect.cleandoc(base.__doc__ or "")
        rows = re.findall(r"^- (`\w+`(?:, `\w+`)*): (.*(?:\n  .*)*)", documentation, re.M)
        for names, text in rows:
            for name in re.findall(r"\w+", names):
                descriptions[name] = " ".join(text.split())
    return " ".join(about.split()), descriptions


class Definitions(dict[str, Schema]):
    """The definitions of a schema, by name. Each is made once."""

    def define(self, name: str, make: Callable[[], Schema]) -> Schema:
        """A reference to a definition."""
        if name not in self:
            self[name] = {}  # for a definition that refers to itself
            self[name].update(make())
        return {"$ref": f"#/definitions/{name}"}

    def section(self, kind: type[Section]) -> Schema:
        """A section, or its short form."""
        return self.define(kind.__name__, lambda: self._section(kind))

    def _section(self, kind: type[Section]) -> Schema:
        about, descriptions = describe(kind)
        properties: Schema = {}
        required = []
        for name, field in kind.fields().items():
            default = as_plain(default_of(field))
            further = {"description": descriptions[name]} if name in descriptions else {}
            if default is dataclasses.MISSING:
                required.append(name)
            elif default not in (None, []) and not isinstance(default, dict):
                further["default"] = default
            properties[name] = _with(self.value(field.type), **further)
        schema: Schema = {
            "type": "object",
            "description": about,
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
        if not issubclass(kind, AbstractChoice):
            return schema
        name = kind.name_key
        if kind.short_form != name:
            required.remove(name)  # the key of the section names it
        properties[name] |= self.names(kind.root, kind.further_names)
        schema["allOf"] = self.options(kind.root, name, kind.beside)
        short = properties[kind.short_form]
        return {"anyOf": [short, schema], "description": about}

    def value(self, annotation: Any) -> Schema:
        """The values of a type, as YAML writes them."""
        kind = get_origin(annotation) or annotation
        inner = get_args(annotation)
        if kind is Annotated:
            limits = [x.schema for x in inner[1:] if isinstance(x, Bound)]
            part = next((x for x in inner[1:] if isinstance(x, PartOf)), None)
            value = self.section(part.section) if part else self.value(inner[0])
            return _with(value, **{key: x for limit in limits for key, x in limit.items()})
        if kind in (Union, UnionType):
            return {"anyOf": [self.value(member) for member in inner]}
        if kind is Literal:
            return {"enum": list(inner)}
        if kind is Spec:
            return self.value(inner[0])
        if kind is Callable:
            return {"anyOf": [{"enum": sorted(activations())}, _CODE]}
        if kind_of(kind) is not None:
            return self.part(kind)
        if is_array(kind):
            return self.define("numbers", lambda: _NUMBERS)
        if kind is Mesh:
            return self.define("Mesh", lambda: self.arguments(Mesh))
        if inspect.isclass(kind) and issubclass(kind, Section):
            return self.section(kind)
        if kind is tuple and inner and inner[-1] is not ...:
            items = [self.value(x) for x in inner]
            return {
                "type": "array",
                "items": items,
                "minItems": len(items),
                "additionalItems": False,
            }
        if kind in (tuple, list, Sequence):
            return {"type": "array", "items": self.value(inner[0]) if inner else {}}
        if kind in (dict, Mapping) and inner:
            return self.mapping(self.value(inner[1]), inner[1])
        if annotation in (Any, inspect.Parameter.empty):
            return {}
        # Other types cannot be written.
        return _PLAIN.get(kind, {"not": {}})

    def mapping(self, value: Schema, kind: Any) -> Schema:
        """Values by their names. A section without a name has its key as its name."""
        schema: Schema = {"type": "object", "additionalProperties": value}
        if inspect.isclass(kind) and issubclass(kind, AbstractChoice):
            is_named = {"type": "object", "required": [kind.name_key]}
            schema["properties"] = dict.fromkeys(_classes(kind.root), value)
            schema["patternProperties"] = {_CODE["pattern"]: value}
            schema["additionalProperties"] = {"allOf": [value, is_named]}
        return schema

    def part(self, kind: Any) -> Schema:
        """A class by its name, or with arguments."""

        def make() -> Schema:
            names = self.names(kind)
            properties = {"kind": names, "options": {"type": "object"}}
            described: Schema = {
                "type": "object",
                "properties": properties,
                "required": ["kind"],
                "additionalProperties": False,
                "allOf": self.options(kind, "kind"),
            }
            return {"anyOf": [names, described], "description": describe(kind)[0]}

        return self.define(kind.__name__, make)

    def names(self, kind: Any, further: Sequence[str] = ()) -> Schema:
        """The names of the classes of a kind."""
        names = sorted({*_classes(kind), *further})
        schemas: list[Schema] = [{"enum": names}, _CODE]
        if issubclass(kind, diffrax.AbstractSolver):
            outer = "|".join(names)
            scheme = rf"({outer}|[\w.]+:\w+)"
            pattern = rf"^{scheme}\(({scheme}(\(.+\))?|\d+)\)$"
            schemas.append({"type": "string", "pattern": pattern})
        return {"anyOf": schemas}

    def options(self, kind: Any, name_key: str, beside: Sequence[str] = ()) -> list[Schema]:
        """What the arguments of each class of a kind are, if its name is set."""
        conditions = []
        for name, part in _classes(kind).items():
            arguments = self.define(
                f"{kind.__name__}.{name}", lambda part=part: self.arguments(part)
            )
            allowed = parameters_of(part)
            condition = {name_key: {"pattern": rf"^{name}(\(.*\))?$"}}
            then: Schema = {"properties": {"options": arguments}}
            then["properties"] |= {x: {"type": "null"} for x in beside if x not in allowed}
            conditions.append(
                {"if": {"properties": condition, "required": [name_key]}, "then": then}
            )
        return conditions

    def arguments(self, part: Any) -> Schema:
        """The arguments of a constructor."""
        about, descriptions = describe(part)
        descriptions |= describe(getattr(part, "build", part))[1]
        parameters = parameters_of(part)
        supplied = {"key", "make_block", "layers"} if "make_block" in parameters else {"key"}
        properties = {}
        for name, parameter in parameters.items():
            if name not in supplied:
                further = {"description": descriptions[name]} if name in descriptions else {}
                properties[name] = _with(self.value(parameter.annotation), **further)
        return {
            "type": "object",
            "description": about,
            "properties": properties,
            "additionalProperties": False,
        }


def _with(schema: Schema, **further: Any) -> Schema:
    """A schema with further keys, which do not count beside a reference."""
    if not further:
        return schema
    return {"allOf": [schema], **further} if "$ref" in schema else {**schema, **further}


def _classes(kind: Any) -> dict[str, Any]:
    """The classes that a configuration may name where it has this kind, by name."""
    root = kind_of(kind) or kind
    classes = classes_by_name(root, (*plugins(), *KINDS[root].modules))
    is_root = kind is root
    return {name: x for name, x in classes.items() if is_root or issubclass(x, kind)}
