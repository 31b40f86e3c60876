"""Sections of a configuration, and the types of their values."""

import copy
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, dataclass_transform

from ...arguments import Bound, above, at_least, below, checked
from ...integration import Mesh


Class = TypeVar("Class", bound=type)
S = TypeVar("S", bound="Section")


class Converted(NamedTuple):
    """In `Annotated`: a function that converts a value of YAML before it is checked."""

    convert: Callable[[Any], Any]


def is_folder_name(name: str) -> bool:
    """Whether a folder can have this name on every system."""
    devices = r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?"
    letters = r"[A-Za-z0-9][A-Za-z0-9._-]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9]"
    return not re.fullmatch(devices, name) and re.fullmatch(letters, name) is not None


def _is_moment(value: int | str) -> bool:
    if isinstance(value, int):
        return 0 < value < 2**31
    part = re.fullmatch(r"(\d{1,3}(\.\d+)?)%", value)
    return part is not None and 0 < float(part[1]) < 100


def _without_empty_options(value: Any) -> Any:
    """`{kind: name}` as the name, so that equal descriptions are equal values."""
    is_name = isinstance(value, dict) and value.keys() <= {"kind", "options"}
    return value["kind"] if is_name and "kind" in value and not value.get("options") else value


not_empty = Bound("at least one", len)
# Runs count in int32.
Count = Annotated[int, above(0), below(2**31)]
CountOrZero = Annotated[int, at_least(0), below(2**31)]
# A step of a run, or a part of all its steps such as "50%".
Moment = Annotated[int | str, Bound("a number of steps, or a part such as 50%", _is_moment)]
# A class by its name, or with arguments of its constructor; see `read`.
Description = Annotated[str | dict[str, Any], Converted(_without_empty_options)]
# JAX uses 32 bits of a seed; larger seeds would draw the same weights.
Seed = Annotated[int, at_least(0), below(2**32)]
# The name of a folder of results.
FolderName = Annotated[
    str, Bound("letters, digits and '-_.' that name a folder, such as small-2", is_folder_name)
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a configuration. Its fields are plain values, which the constructor checks;
    `__post_init__` checks keys that depend on each other."""

    @classmethod
    def complete(cls, tree: Any) -> Any:
        """The tree of a section, with its short forms written out."""
        return tree

    def replace(self: S, **values: Any) -> S:
        """The section with other values, which are not checked again."""
        section = copy.copy(self)
        vars(section).update(values)
        return section

    def as_tree(self) -> dict[str, Any]:
        """All values by their keys, as YAML holds them."""
        return {x.name: _plain(getattr(self, x.name)) for x in dataclasses.fields(self)}

    def changes(self) -> dict[str, Any]:
        """The values that differ from the defaults."""
        return {
            field.name: value.changes() if isinstance(value, Section) else _plain(value)
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != _default(field)
        }


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.as_tree()
    if isinstance(value, Mesh):
        return _plain(value.options)
    if isinstance(value, dict):
        return {name: _plain(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return str(value) if isinstance(value, Path) else value


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: Class) -> Class:
    """Makes a section: a frozen dataclass whose constructor checks its values."""
    return checked(dataclasses.dataclass(frozen=True, kw_only=True)(cls))
