"""Keys of a configuration, and the places where they are written."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import jax

from ...errors import short


class Place(NamedTuple):
    """Where a key is written.

    - `source`: a line of a file, such as `schemes.yaml:14`, or `command line`.
    - `key`: the key from the top of that file.
    """

    source: str
    key: str


# The places of keys, by their dotted names.
Places: TypeAlias = Mapping[str, Place]


@dataclasses.dataclass(frozen=True)
class Key:
    """A dotted key of a configuration, such as `model.width`.

    As a text it begins with the place where it is written, or where the closest key above it
    is: `schemes.yaml:14: schemes.rk4.model.width`.
    """

    name: str = ""
    places: Places = dataclasses.field(default_factory=dict, repr=False, compare=False)
    # The part after the last dot; its own dots count as letters.
    part: str = ""

    def __truediv__(self, part: object) -> "Key":
        return Key(join(self.name, str(part)), self.places, str(part))

    def __str__(self) -> str:
        source, key = self.place
        return ": ".join(filter(None, (short(source, 200), short(key, 200))))

    @property
    def place(self) -> Place:
        """The place of the key. A key that is not written has the source of the closest key
        above it."""
        above = self.name
        while above and above not in self.places:
            above = above.rpartition(".")[0]
        source, key = self.places.get(above, Place("", above))
        return Place(source, join(key, self.name[len(above) :].lstrip(".")))


def join(*parts: str) -> str:
    """Joins parts of a key by dots; empty parts are left out."""
    return ".".join(filter(None, parts))


def is_below(name: str, above: str) -> bool:
    """Whether a dotted name is `above` or a key below it."""
    return f"{name}.".startswith(f"{above}.")


def path_of(path: tuple) -> str:
    """A path into a tree of JAX as names and numbers joined by dots."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
