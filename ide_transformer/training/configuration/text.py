"""Reads and writes trees of plain values as YAML, and applies overrides `a.b=value` to them.

Values follow YAML 1.2: `yes`, `010`, `1:30` and dates are texts, `1e-3` is a number. Keys are
texts, also `1` and `<<`. Anchors and aliases are rejected."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ...errors import ConfigError, InputError, shown
from .key import Key, Place, Places, is_below, join


# Keys whose values are paths, which may contain a colon.
_PATHS = ("data", "path"), ("model", "pretrained"), ("model", "run")
# The sections that may be written as a name alone, with the key of that name.
_SHORT_FORMS = {"data": "name", "model": "kind", "control": "kind", "solver": "kind"}
# The most characters of a text.
LONGEST = 2**18
COMMAND_LINE = "command line"
# The lookbehind skips starts inside a name, which would make the search quadratic.
NAME_OF_CODE = re.compile(r"(?<![\w.])[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


class Tree(dict[str, Any]):
    """Sections of a configuration as plain values, with the place of each key."""

    def __init__(self, values: Mapping[str, Any], places: Places | None = None):
        super().__init__(values)
        self.places = dict(places or {})

    def set_places(self, name: str, places: Places) -> None:
        """Replaces the places of a key, and of the keys above and below it."""
        others = {x: place for x, place in self.places.items() if not is_below(x, name)}
        changed = {x: y for x, y in places.items() if is_below(x, name) or is_below(name, x)}
        self.places = others | changed

    def merge(self, changes: Mapping[str, Any], key: Key) -> None:
        """Merges the sections at a key of another file. A solver replaces the earlier
        solver."""
        places = {
            name[len(key.name) + 1 :]: place
            for name, place in key.places.items()
            if is_below(name, key.name)
        }
        for name, values in changes.items():
            section = _in_full(name, self.get(name) or {})
            if name != "solver" and isinstance(values, dict) and isinstance(section, dict):
                self[name] = {**section, **values}
                self.places |= {x: places[x] for x in places if x == name}
                for option in values:
                    self.set_places(join(name, option), places)
            else:
                self[name] = values
                self.set_places(name, places)


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Place]:
    """Applies overrides to a tree, and returns the place of each key. An override without a
    value removes the key."""
    places: dict[str, Place] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        *parents, last = key.split(".")
        if not separator or not all((*parents, last)):
            raise InputError(
                f"{shown(override)}: use section.key=value, such as model.layers=8."
            )
        place = Place(COMMAND_LINE, key)
        branch = tree
        for section, part in zip(itertools.accumulate(parents, join), parents, strict=True):
            branch[part] = _in_full(section, branch.get(part, {}))
            branch = branch[part]
            if not isinstance(branch, dict):
                raise ConfigError(
                    f"{': '.join(place)}: {section} is a value, not a section; set {section}."
                )
        value = read_yaml(text, ": ".join(place))
        if value is None:
            branch.pop(last, None)
        else:
            branch[last] = value
        for earlier in places:
            if is_below(earlier, key):
                raise ConfigError(
                    f"{': '.join(place)}={text} would replace {earlier}; drop one of them."
                )
        places[key] = place
        if isinstance(tree, Tree):
            above = {x: Place(COMMAND_LINE, x) for x in itertools.accumulate(parents, join)}
            tree.set_places(key, {**above, key: place})
    return places


def _in_full(name: str, section: Any) -> Any:
    """A section that is written as a name alone, with the key of that name."""
    key = _SHORT_FORMS.get(name)
    return {key: section} if key and isinstance(section, str) else section


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


def read_yaml(text: str, where: str) -> Any:
    """Parses the value of an override; `None` if it is empty. Errors name `where` it is."""
    return _parse(text, where, lambda mark: f"{where}: column {mark.column + 1}")[0]


def read_file(path: Path) -> tuple[Any, dict[str, Place]]:
    """Parses a file, and returns the place of each key. An empty file is `None`.

    **Raises:** `InputError` that names the line.
    """
    with path.open("rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise InputError(f"{path}: a configuration has at most {LONGEST:,} characters.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8.") from None
    tree, lines = _parse(text, str(path), lambda mark: f"{path}:{mark.line + 1}")
    places = {name: Place(f"{path}:{line}", name) for name, line in lines.items()}
    return tree, {"": Place(str(path), ""), **places}


def _parse(text: str, where: str, place: Callable[[Any], str]) -> tuple[Any, dict[str, int]]:
    """The value of a text, and the line of each key. Errors name the `place` of a mark in the
    text, or else `where` the text is."""
    try:
        loader = _Reader(text)
        node = loader.get_single_node()
        lines = dict(_lines(node))
        return node and loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{place(mark)}: {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise ConfigError(f"{where}: it has too many levels inside each other.") from None


def _lines(node: Any, above: str = "") -> Iterator[tuple[str, int]]:
    """The line of each key below a node of YAML."""
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name = join(above, str(key.value))
            line = key.start_mark.line + 1
            if name in first:
                problem = f"{name} is set twice, first in line {first[name]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            first[name] = line
            yield name, line
            yield from _lines(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            name = join(above, str(index))
            yield name, value.start_mark.line + 1
            yield from _lines(value, name)


def write_yaml(tree: Any) -> str:
    """A tree of plain values as YAML that `read_yaml` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


class _Reader(yaml.SafeLoader):
    """Reads YAML 1.2; rejects anchors, and keys that are not names."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if event.anchor is not None:
            raise _error_at(event, "anchors (&) and aliases (*) are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if key.tag in (f"{_TAG}int", f"{_TAG}float"):
                key.tag = f"{_TAG}str"
            if key.tag != f"{_TAG}str":
                raise _error_at(key, "a key must be a name; put it in quotes")
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
