"""YAML texts as trees of plain values, and overrides `a.b=value` of a tree.

Numbers and words are read by YAML 1.2: `yes`, `010`, `1:30` and dates are texts, `1e-3` is a
number. Keys are texts, also whole numbers and `<<`. Anchors and aliases are rejected."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import yaml

from ...errors import InputError, short, shown


# Keys of files and folders, whose names may hold a colon.
_PATHS = ("data", "path"), ("model", "pretrained"), ("model", "run")
# The most characters of a text, and the most sections inside each other.
LONGEST = 2**18
_DEEPEST = 50
# It must not begin inside a name, or a long text would take quadratic time.
NAME_OF_CODE = re.compile(r"(?<![\w.])[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Changes a tree by overrides; returns the override of each key. One without a value drops
    its key."""
    origin: dict[str, str] = {}
    for override in overrides:
        where = f"override {shown(override)}"
        key, separator, text = override.partition("=")
        *parents, last = key.split(".")
        if not separator or not all((*parents, last)):
            raise InputError(f"{shown(override)}: use section.key=value, as model.layers=8.")
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
    """The names `package.module:Class` in the keys and values of a tree, by their keys."""
    names: dict[str, list[str]] = {}
    for path, text in _texts(tree):
        if path not in _PATHS and (names_in_text := NAME_OF_CODE.findall(text)):
            names.setdefault(".".join(path), []).extend(names_in_text)
    return names


def _texts(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """All keys and texts in a tree of sections, with their places."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield (*path, str(key)), str(key)
            yield from _texts(value, (*path, str(key)))


def read_yaml(text: str | bytes, where: str) -> Any:
    """The value in a text; `None` for an empty one. Errors say `where` it is, and the line."""
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
            raise _wrong(event, "anchors (&) and aliases (*) are not supported")
        if len(self.marks) > _DEEPEST:
            raise _wrong(event, f"more than {_DEEPEST} sections inside each other")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, Any] = {}
        for key, _ in node.value:
            if key.tag in (f"{_TAG}int", f"{_TAG}float"):
                key.tag = f"{_TAG}str"
            if key.tag != f"{_TAG}str":
                raise _wrong(key, "a key must be a name; put it in quotes")
            if (before := first.setdefault(key.value, key)) is not key:
                line = before.start_mark.line + 1
                raise _wrong(key, f"{short(key.value)} is set twice, first in line {line}")
        return super().construct_mapping(node, deep)


def _wrong(part: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=part.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader of YAML 1.1 or 1.2 would take for something else."""


_TAG = "tag:yaml.org,2002:"
_FLOAT = (
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
for _name, _pattern in {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    # No configuration holds an integer of more digits.
    "int": "[-+]?(?:0|[1-9][0-9_]{0,99})",
    "float": _FLOAT,
}.items():
    _Reader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)
_Dumper.add_implicit_resolver(f"{_TAG}float", re.compile(rf"(?:{_FLOAT})\Z"), None)
