"""YAML of configurations.

Numbers and words are those of YAML 1.2: `yes`, `010`, `1:30` and dates are texts, and `1e-3` is
a number. A key is a text, also a whole number. Tags, anchors and aliases are refused, and `<<`
is a key like others."""

import re
from typing import Any, ClassVar, cast

import yaml

from ...errors import InputError, short


# Characters of a text, and levels of sections in it.
LONGEST, DEEPEST = 2**18, 50


def read_yaml(text: str | bytes, where: str, path: tuple[str, ...] = ()) -> Any:
    """The value that a text holds, which is for the key at `path`; `None` for none. An
    `InputError` names the place `where` the text is from, its line, and the key in error."""
    if len(text) > LONGEST:
        raise InputError(f"{where}: a configuration has at most {LONGEST:,} characters.")
    try:
        reader = _Reader(text if isinstance(text, str) else text.decode("utf-8-sig"), path)
        node = reader.get_node() if reader.check_node() else None
        if reader.check_node():
            raise InputError("it holds more than one document (---); write one.")
        return None if node is None else reader.construct_document(node)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: {error.reason} at byte {error.start}; the file must be UTF-8."
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context
        raise InputError(f"{where}: not valid YAML: {_place(mark)}: {problem}.") from None
    except (yaml.YAMLError, InputError) as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from None


def write_yaml(tree: Any) -> str:
    """A tree of plain values as YAML that `read_yaml` gives back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


class _Reader(yaml.SafeLoader):
    """Reads YAML 1.2 for the key `path`, and refuses what no configuration holds."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}

    def __init__(self, text: str, path: tuple[str, ...]) -> None:
        super().__init__(text)
        self.path = [*path]
        self.keys = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The value of the key `index`, or the item of that number; without either a key."""
        if isinstance(index, yaml.Node):
            self._check_key(parent, index)
        if parent is not None:
            self.path.append(str(getattr(index, "value", index)))
        event = self.peek_event()
        path = ".".join(map(short, self.path[:8]))
        here = f"{_place(event.start_mark)}: {path or 'the file'}"
        if len(self.path) > DEEPEST:
            raise InputError(f"{here}…: more than {DEEPEST} sections inside each other.")
        if event.anchor is not None:
            raise InputError(
                f"{here}: anchors (&) and aliases (*) are not read; write the value out, or "
                "quote a text that begins so."
            )
        if event.tag is not None:
            raise InputError(f"{here}: tags are not read; drop {short(event.tag)}.")
        node = super().compose_node(parent, cast(int, index))
        if parent is not None:
            self.path.pop()
        return node

    def _check_key(self, section: Any, key: Any) -> None:
        for kind in ("int", "float"):
            if key.tag == f"{_TAG}{kind}":
                number = getattr(self, f"construct_yaml_{kind}")(key)
                key.tag = f"{_TAG}str"
                key.value = str(number)
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        here = f"{_place(key.start_mark)}: {'.'.join(map(short, [*self.path, name]))}"
        if key.tag != f"{_TAG}str":
            raise InputError(f"{here}: a key is a name; write it in quotes if it is one.")
        first = self.keys.setdefault((section, key.value), key)
        if first is not key:
            line = first.start_mark.line + 1
            raise InputError(f"{here} is given twice, first in line {line}; drop one of them.")


class _Dumper(yaml.SafeDumper):
    """Quotes what a reader of YAML 1.1 or of 1.2 would not take for a text."""


_TAG = "tag:yaml.org,2002:"
_FLOAT = (
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
for _name, _pattern in {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    # An integer of more digits is no number of a configuration.
    "int": "[-+]?(?:0|[1-9][0-9_]{0,99})",
    "float": _FLOAT,
}.items():
    _Reader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)
_Dumper.add_implicit_resolver(f"{_TAG}float", re.compile(rf"(?:{_FLOAT})\Z"), None)


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
