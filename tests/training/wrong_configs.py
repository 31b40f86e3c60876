"""Configurations that are wrong in one place, made from the schema of the right ones."""

import dataclasses
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from hypothesis import strategies as st

from ide_transformer import training
from ide_transformer.training.configuration.config import ClassSection
from ide_transformer.training.configuration.reader import kind_of
from ide_transformer.training.configuration.section import Description, Section


class Place(NamedTuple):
    """A key and the kinds of values that it takes."""

    key: str
    kinds: frozenset[type]

    def override(self, value: Any) -> str:
        # JSON, which is YAML but for numbers that are not finite.
        text = json.dumps(value).replace("NaN", ".nan").replace("Infinity", ".inf")
        return f"{self.key}={text}"


def keys() -> dict[str, Any]:
    """All keys of a configuration, with their annotations."""

    def inside(kind: type[Section], prefix: str) -> Iterator[tuple[str, Any]]:
        for field in dataclasses.fields(kind):
            name = field.name
            section = field.type
            yield prefix + name, section
            if not (inspect.isclass(section) and issubclass(section, Section)):
                continue
            # The parts of a model need a name beside the other keys.
            if not (issubclass(section, ClassSection) and prefix == "model."):
                yield from inside(section, f"{prefix}{name}.")

    return dict(inside(training.Config, ""))


def places() -> list[Place]:
    """The keys that refuse some kind of value. Without a value an override drops its key."""
    kinds_by_key = ((key, kinds_of(kind)) for key, kind in keys().items())
    return [Place(key, kinds | {NoneType}) for key, kinds in kinds_by_key if kinds]


def kinds_of(annotation: Any) -> frozenset[type]:
    """The kinds of values that a type takes; none where that is not known."""
    if annotation in (str, bool, int, float, list, dict, NoneType, Path):
        converted = {float: {float, int}, Path: {str}}
        return frozenset(converted.get(annotation, {annotation}))
    origin = get_origin(annotation)
    if origin is Annotated:
        return kinds_of(get_args(annotation)[0])
    if origin is Literal:
        return frozenset(map(type, get_args(annotation)))
    if origin in (tuple, list, dict):
        return frozenset({list if origin is tuple else origin})
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return frozenset({dict, str} if issubclass(annotation, ClassSection) else {dict})
    if annotation == Description or kind_of(annotation):
        return frozenset({dict, str})
    if origin is not None and get_args(annotation) and origin is not type:
        inner = [kinds_of(x) for x in get_args(annotation)]
        return frozenset().union(*inner) if all(inner) else frozenset()
    return frozenset()


_TEXTS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=8)
_VALUES = {
    str: _TEXTS.map(lambda x: f"{x} is no such") | st.sampled_from(["8", "yes", "a:b"]),
    bool: st.booleans(),
    int: st.integers(-(2**70), 2**70),
    float: st.floats(),
    list: st.lists(st.sampled_from([1, "a", None, True, []]), max_size=3),
    dict: st.dictionaries(_TEXTS, st.integers(), min_size=1, max_size=2),
    NoneType: st.none(),
}
# No numbers of a configuration, whatever the key.
_NO_INTEGERS = [2**32, 2**63, 10**30]
_NO_NUMBERS = [float("nan"), float("inf"), -float("inf")]


def wrong_values(place: Place) -> st.SearchStrategy:
    """Values of another kind, and numbers out of every range."""
    kinds = place.kinds
    strategies = [strategy for kind, strategy in _VALUES.items() if kind not in kinds]
    if kinds <= {int, float, NoneType}:
        strategies.append(st.sampled_from(_NO_NUMBERS if float in kinds else _NO_INTEGERS))
        if "." in place.key:  # no key of a section takes a number below zero
            strategies.append(st.integers(max_value=-1) if int in kinds else st.just(-0.5))
    return st.one_of(*strategies)
