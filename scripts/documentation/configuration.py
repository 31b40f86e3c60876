"""The tables of the keys of a configuration, read from its schema. Explanations are the
comments above the fields."""

import ast
import inspect
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ide_transformer import InputError
from ide_transformer.reporting import markdown_table as table
from ide_transformer.training import Config, SchemeConfig, Section
from ide_transformer.training.choice import Choice
from ide_transformer.training.names import FACES, find, snake_case


_NAMES = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
}
_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def code(text: object) -> str:
    """A name or value as code."""
    return f"`{text}`"


def keys_tables() -> str:
    """A table for each section of a configuration, and one for the keys of none."""
    plain, sections = [], []
    for key, field in Config.model_fields.items():
        kind = field.annotation
        if inspect.isclass(kind) and issubclass(kind, Section):
            about = (inspect.getdoc(kind) or "").replace("\n", " ").removeprefix(f"`{key}`: ")
            title = f"## {key}\n\n{about[0].upper()}{about[1:]}"
            sections.append(f"{title}\n\n{_keys(kind, f'{key}.')}")
        else:
            plain.append(key)
    return "\n\n".join([f"## The run\n\n{_keys(Config, '', plain)}", *sections])


def names_table() -> str:
    """The names that a configuration knows, by the class that they stand for."""
    rows = [(code(base.__name__), ", ".join(map(code, names_of(base)))) for base in FACES]
    return table(("kind", "names"), rows)


def names_of(base: type) -> list[str]:
    """The names of the classes of that kind that a configuration can choose."""

    def known(name):
        try:
            return bool(find("", name, base))
        except InputError:
            return False

    return sorted(filter(known, {snake_case(x) for face in FACES[base] for x in vars(face)}))


def _keys(kind: type[Section], prefix: str, chosen: list[str] | None = None) -> str:
    """The table of the keys of a section, or of some of them.

    **Raises:** `InputError` for a key without an explanation.
    """
    comments = {key: text for x in reversed(kind.__mro__) for key, text in _comments(x).items()}
    names = sorted(chosen or kind.model_fields, key="options".__eq__)
    without = [prefix + name for name in names if not comments.get(name)]
    if without:
        raise InputError(f"{kind.__name__}: write a comment above {', '.join(without)}")
    rows = [
        (code(prefix + name), _type(field), _default(field), comments[name])
        for name in names
        for field in [kind.model_fields[name]]
    ]
    return table(("key", "value", "default", "explanation"), rows)


def _comments(kind: type) -> dict[str, str]:
    """The comment above each field of a class."""
    if not issubclass(kind, Section):
        return {}
    source = inspect.getsource(kind)
    lines = source.splitlines()
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = node.lineno - 2
            texts: list[str] = []
            while lines[above].strip().startswith("#"):
                texts.insert(0, lines[above].strip().removeprefix("# "))
                above -= 1
            found[node.target.id] = " ".join(texts)
    return found


def _type(field: FieldInfo) -> str:
    return _with_limits(_words(field.annotation), field.metadata)


def _with_limits(words: str, metadata: Iterable[Any]) -> str:
    limits = [
        f"{sign} {getattr(limit, name):g}"
        for limit in metadata
        for name, sign in _SIGNS.items()
        if hasattr(limit, name)
    ]
    return ", ".join([words, *limits])


def _words(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = [_words(x) for x in arguments if x is not type(None)]
        return " or ".join([*inner, "null"])
    if origin is Annotated:
        return _with_limits(_words(arguments[0]), arguments[1:])
    if origin is Literal:
        return " or ".join(map(code, arguments))
    if origin is tuple:
        return f"list of {_words(arguments[0])}s"
    if annotation in _NAMES:
        return _NAMES[annotation]
    if issubclass(origin or annotation, SchemeConfig):
        return "scheme"
    return "name" if issubclass(origin or annotation, Choice) else "mapping"


def _default(field: FieldInfo) -> str:
    match field.default:
        case None:
            return "–"
        case bool(value):
            return code(str(value).lower())
        case Choice(kind=kind):
            return code(kind)
        case tuple(parts):
            return code(f"[{', '.join(part.kind for part in parts)}]")
        case value:
            return code(value)
