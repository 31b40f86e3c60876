"""YAML, read strictly: a tree of plain values, each written once.

Numbers and words are those of YAML 1.2: `yes`, `010`, `1:30` and dates are texts, and `1e-3` is
a number. A key is a text, also a whole number. Tags, anchors and aliases are refused, and `<<`
is a key like others."""

import re
from typing import Any

import yaml

from ..errors import InputError


# Characters of a text, and levels of sections in it.
LONGEST, DEEPEST = 2**18, 50

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# An integer of more digits is no number of a configuration.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,99})")
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)


def read_yaml(text: str | bytes, where: str, path: tuple[str, ...] = ()) -> Any:
    """The value that a text holds, which is for the key at `path`; `None` for none.

    **Raises:** `InputError` that names the place `where` the text is from, its line, and the
    key in error.
    """
    if len(text) > LONGEST:
        raise InputError(
            f"{where}: it has {len(text):,} characters or more; a configuration has at most "
            f"{LONGEST:,}."
        )
    try:
        reader = _Reader(text if isinstance(text, str) else text.decode("utf-8-sig"))
        return reader.document(path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: {error.reason} at byte {error.start}; the file must be UTF-8."
        ) from None
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        problem = error.problem or error.context
        raise InputError(f"{where}: not valid YAML: {_place(mark)}: {problem}.") from None
    except (yaml.YAMLError, InputError) as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from None


def write_yaml(tree: Any) -> str:
    """A tree of plain values as YAML that `read_yaml` gives back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


class _Reader(yaml.SafeLoader):
    """Values made from the events of the parser, which are few and lazy."""

    def document(self, path: tuple[str, ...]) -> Any:
        self.get_event()  # the start of the stream
        if self.check_event(yaml.StreamEndEvent):
            return None
        self.get_event()  # the start of the document
        value = self._value(path)
        self.get_event()
        if not self.check_event(yaml.StreamEndEvent):
            raise InputError("it holds more than one document (---); write one.")
        return value

    def _value(self, path: tuple[str, ...]) -> Any:
        event = self.get_event()
        here = f"{_place(event.start_mark)}: {'.'.join(path[:8]) or 'the file'}"
        if len(path) > DEEPEST:
            raise InputError(f"{here}…: more than {DEEPEST} sections inside each other.")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise InputError(
                f"{here}: anchors (&) and aliases (*) are not read; write the value out, or "
                "quote a text that begins so."
            )
        if event.tag is not None:
            raise InputError(f"{here}: tags are not read; drop {event.tag}.")
        if isinstance(event, yaml.ScalarEvent):
            return event.value if event.style else _plain(event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not self.check_event(yaml.SequenceEndEvent):
                items.append(self._value((*path, str(len(items)))))
            self.get_event()
            return items
        return self._section(path)

    def _section(self, path: tuple[str, ...]) -> dict[str, Any]:
        section, lines = {}, {}
        while not self.check_event(yaml.MappingEndEvent):
            mark = self.peek_event().start_mark
            key = self._value(path)
            if type(key) is int:
                key = str(key)
            if not isinstance(key, str):
                raise InputError(
                    f"{_place(mark)}: {'.'.join((*path, repr(key)))}: a key is a name; write "
                    "it in quotes if it is one."
                )
            if key in section:
                raise InputError(
                    f"{_place(mark)}: {'.'.join((*path, key))} is given twice, first in line "
                    f"{lines[key]}; drop one of them."
                )
            lines[key] = mark.line + 1
            section[key] = self._value((*path, key))
        self.get_event()
        return section


class _Dumper(yaml.SafeDumper):
    """Quotes what a reader of YAML 1.1 or of 1.2 would not take for a text."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _plain(text: str) -> Any:
    """The value of a text without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    return text


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
