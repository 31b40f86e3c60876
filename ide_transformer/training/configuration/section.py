"""Sections of a configuration, and the types of their values."""

import copy
import dataclasses
import functools as ft
import re
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    TypeVar,
    cast,
    dataclass_transform,
)

from ...arguments import Bound, above, at_least, below
from ...errors import ConfigError, shown
from ...integration import Mesh
from .key import Key
from .reader import AbstractKeyed, Spec, resolve, spec_of, unknown_key


Class = TypeVar("Class", bound=type)
T = TypeVar("T")
S = TypeVar("S", bound="Section")


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


not_empty = Bound("at least one", len, {"minItems": 1, "minProperties": 1})
# Runs count in int32.
Count = Annotated[int, above(0), below(2**31)]
CountOrZero = Annotated[int, at_least(0), below(2**31)]
# A step of a run, or a part of all its steps such as "50%".
Moment = Annotated[
    int | str,
    Bound(
        "a number of steps, or a part such as 50%",
        _is_moment,
        {"exclusiveMinimum": 0, "pattern": r"^\d{1,3}(\.\d+)?%$"},
    ),
]
# JAX uses 32 bits of a seed; larger seeds would draw the same weights.
Seed = Annotated[int, at_least(0), below(2**32)]
# The name of a folder of results.
FolderName = Annotated[
    str,
    Bound(
        "letters, digits and '-_.' that name a folder, such as small-2",
        is_folder_name,
        {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"},
    ),
]


class PartOf(NamedTuple):
    """In `Annotated`: a mapping holds some keys of a section, such as changes of a run."""

    section: "type[Section]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section(AbstractKeyed):
    """A section of a configuration. Its constructor resolves and checks its values, from YAML
    or from Python; `__post_init__` checks keys that depend on each other."""

    # The key of the section.
    key: ClassVar[Key] = Key()

    @classmethod
    def complete(cls, tree: Any, key: Key) -> Any:
        """The tree of a section, with its short forms written out."""
        return tree

    @classmethod
    def read(cls: type[S], tree: Any, key: Key) -> S:
        tree = cls.complete(tree, key)
        if not isinstance(tree, dict):
            raise ConfigError(f"{key}={shown(tree)}: expected keys with values.")
        return cast(Any, cls)(key, **tree)

    @classmethod
    def fields(cls) -> dict[str, dataclasses.Field]:
        """The fields that are keys, by name."""
        return {x.name: x for x in dataclasses.fields(cls) if x.init}

    def require(self, holds: object, name: str, problem: str) -> None:
        """Raises `InputError` unless a condition on a key holds. The problem follows the key
        and its value."""
        if not holds:
            value = shown(as_plain(getattr(self, name)))
            raise ConfigError(f"{self.key / name}={value}: {problem}.")

    def replace(self: S, **values: Any) -> S:
        """The section with other values, which are not checked again."""
        section = copy.copy(self)
        vars(section).pop("spec", None)
        vars(section).update(values)
        return section

    def as_tree(self) -> dict[str, Any]:
        """All values by their keys, as YAML holds them."""
        return {name: as_plain(getattr(self, name)) for name in self.fields()}

    def changes(self) -> dict[str, Any]:
        """The values that differ from the defaults."""
        return {
            name: value.changes() if isinstance(value, Section) else as_plain(value)
            for name, field in self.fields().items()
            if as_plain(value := getattr(self, name)) != as_plain(default_of(field))
        }


def default_of(field: dataclasses.Field) -> Any:
    """The default of a field; `dataclasses.MISSING` if it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def as_plain(value: Any) -> Any:
    """A value as YAML holds it."""
    if isinstance(value, Section):
        return value.as_tree()
    if isinstance(value, Mesh):
        return as_plain(value.options)
    if isinstance(value, Spec):
        return as_plain(value.tree)
    if isinstance(value, dict):
        return {name: as_plain(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(x) for x in value]
    return str(value) if isinstance(value, Path) else value


def part(name: str | tuple[str, ...]) -> Any:
    """The default of a key that is a `Spec`, or several: the classes with these names."""
    return name


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: Class) -> Class:
    """Makes a section: a frozen dataclass whose constructor resolves its values."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    initialize = cls.__init__

    @ft.wraps(initialize)
    def resolve_and_initialize(self: Any, key: Key = Key(), /, **values: Any) -> None:
        if not isinstance(key, Key):
            raise TypeError(f"{cls.__name__} takes its values by name, not {key!r}.")
        fields = cls.fields()
        for name in [name for name in values if name not in fields]:
            raise unknown_key(key / name, values[name], name, fields)
        for name, field in fields.items():
            value = values.get(name, default_of(field))
            if value is dataclasses.MISSING:
                raise ConfigError(f"{key / name} is missing.")
            values[name] = resolve(field.type, value, key / name)
        object.__setattr__(self, "key", key)
        initialize(self, **values)

    cast(Any, cls).__init__ = resolve_and_initialize
    return cls


class AbstractChoice(Section, Generic[T]):
    """A section that chooses a class by its name, with arguments in `options`."""

    # The base of the class, and names that stand for no class.
    root: ClassVar[type]
    further_names: ClassVar[tuple[str, ...]] = ()
    # The key of the name, the key whose value may stand for the section, and the arguments of
    # the class that are not in `options`.
    name_key: ClassVar[str] = "kind"
    short_form: ClassVar[str] = "kind"
    beside: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def complete(cls, tree: Any, key: Key) -> Any:
        return tree if isinstance(tree, dict) else {cls.short_form: tree}

    @ft.cached_property
    def spec(self) -> Spec[T]:
        """The class with its arguments."""
        values = vars(self)
        beside = {x: as_plain(values[x]) for x in self.beside if values[x] is not None}

        def place(option: str) -> Key:
            return self.key / option if option in self.beside else self.key / "options" / option

        return spec_of(
            kind=self.root,
            name=values[self.name_key],
            options=values["options"] | beside,
            key=self.key,
            name_key=self.key / self.name_key,
            place=place,
        )

    def __post_init__(self) -> None:
        for name in self.beside:
            is_outside = name not in vars(self)["options"]
            self.require(is_outside, "options", f"set {name} beside options")
        _ = self.spec


@section
class ClassSection(AbstractChoice[T]):
    """A section that chooses a class.

    **Keys:**

    - `kind`: The name.
    - `options`: Arguments of the class, by name.
    """

    kind: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
