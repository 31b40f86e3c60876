"""Reads and writes trees of plain values as YAML, and applies overrides `a.b=value` to them.

Values follow YAML 1.2: `yes`, `010`, `1:30` and dates are texts, `1e-3` is a number. Keys are
texts, also `1` and `<<`. Anchors and aliases are rejected."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import yaml

from ...errors import InputError, short, shown


# Keys whose values are paths, which may contain a colon.
_PATHS = ("data", "path"), ("model", "pretrained"), ("model", "run")
# The most characters of a text, and the deepest nesting of sections.
LONGEST = 2**18
_DEEPEST = 50
# The lookbehind skips starts inside a name, which would make the search quadratic.
NAME_OF_CODE = re.compile(r"(?<![\w.])[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Applies overrides to a tree, and returns the override of each key. An override without a
    value removes the key."""
    origin: dict[str, str] = {}
    for override in overrides:
        where = f"override {shown(override)}"
        key, separator, text = override.partition("=")
        *parents, last = key.split(".")
        if not separator or not all((*parents, last)):
            raise InputError(
                f"{shown(override)}: use section.key=value, such as model.layers=8."
            )
        branch = tree
        for part in parents:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise InputError(f"{where}: {part} is a value, not a section.")
        value = read_yaml(text, where)
        if value is None:
            branch.pop(last, None)
        else:
            branch[last] = value
        for other, earlier in origin.items():
            if f"{other}.".startswith(f"{key}."):
                raise InputError(f"{where}: {key} would replace {earlier}; drop one of them.")
        origin[key] = where
    return origin


def names_of_code(tree: Any) -> dict[str, list[str]]:
    """The names `package.module:Class` in the keys and values of a tree, by dotted key."""
    names: dict[str, list[str]] = {}
    for path, text in _texts(tree):
        if path not in _PATHS and (names_in_text := NAME_OF_CODE.findall(text)):
            names.setdefault(".".join(path), []).extend(names_in_text)
    return names


def _texts(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """All keys and texts in a tree, each with its path."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield (*path, str(key)), str(key)
            yield from _texts(value, (*path, str(key)))


def read_yaml(text: str | bytes, where: str) -> Any:
    """Parses a text; `None` if it is empty. Errors name the line, and `where` the text is."""
    if len(text) > LONGEST:
        raise InputError(f"{where}: a configuration has at most {LONGEST:,} characters.")
    try:
        return yaml.load(text if isinstance(text, str) else text.decode("utf-8-sig"), _Reader)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: byte {error.start} is not UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}"
        raise InputError(f"{where}: {place}: {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from None


def write_yaml(tree: Any) -> str:
    """A tree of plain values as YAML that `read_yaml` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


class _Reader(yaml.SafeLoader):
    """Reads YAML 1.2; rejects anchors, deep nesting, and keys that are not names."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if event.anchor is not None:
            raise _error_at(event, "anchors (&) and aliases (*) are not supported")
        if len(self.marks) > _DEEPEST:
            raise _error_at(event, f"more than {_DEEPEST} sections inside each other")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, Any] = {}
        for key, _ in node.value:
            if key.tag in (f"{_TAG}int", f"{_TAG}float"):
                key.tag = f"{_TAG}str"
            if key.tag != f"{_TAG}str":
                raise _error_at(key, "a key must be a name; put it in quotes")
            if (before := first.setdefault(key.value, key)) is not key:
                line = before.start_mark.line + 1
                raise _error_at(key, f"{short(key.value)} is set twice, first in line {line}")
        return super().construct_mapping(node, deep)


def _error_at(part: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=part.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes texts that YAML 1.1 or 1.2 would read as another type."""


_TAG = "tag:yaml.org,2002:"
_FLOAT = (
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
for _name, _pattern in {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    # At most 100 digits: Python does not convert thousands of them.
    "int": "[-+]?(?:0|[1-9][0-9_]{0,99})",
    "float": _FLOAT,
}.items():
    _Reader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)
_Dumper.add_implicit_resolver(f"{_TAG}float", re.compile(rf"(?:{_FLOAT})\Z"), None)
