"""Configurations from YAML files and overrides `a.b=value`."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from ..errors import InputError
from .choice import Section
from .config import Config
from .names import did_you_mean


S = TypeVar("S", bound=Section)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with overrides `section.key=value` applied.

    **Raises:** `InputError` that names every key in error and where it was written.
    """
    tree = read_tree(path := Path(path))
    tree.setdefault("name", path.stem)
    origin = apply_overrides(tree, overrides)
    return validated(Config, tree, str(path), origin)


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Changes a tree of sections by overrides; the override that gave each key."""
    return {_override(tree, override): f"override {override!r}" for override in overrides}


def read_tree(path: Path) -> dict[str, Any]:
    """The sections of a YAML file, unchecked."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such configuration file.")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected sections such as `model:`, found {tree!r}.")
    return tree


def validated(kind: type[S], tree: Any, where: str, origin: dict[str, str] | None = None) -> S:
    """A tree as a section of that kind.

    **Raises:** `InputError` that names every key in error and the place `where` the tree was
    written, or the one that `origin` gives for the key.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(kind, item, origin or {}, where) for item in error.errors()]
        raise InputError("\n".join(problems)) from None


def dump_config(config: Config) -> str:
    """The configuration as YAML, every key written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _override(tree: dict[str, Any], override: str) -> str:
    key, separator, text = override.partition("=")
    *parents, last = key.split(".")
    if not separator or not all((*parents, last)):
        raise InputError(
            f"{override!r} is not an override; write section.key=value, for example "
            "model.depth=8."
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{override!r}: {text!r} is not a YAML value.") from None
    branch = tree
    for part in parents:
        branch = branch.setdefault(part, {})
        if not isinstance(branch, dict):
            raise InputError(f"{override!r}: {part} is a value, not a section.")
    branch[last] = value
    return key


def _problem(kind: type[Section], error: Any, origin: dict[str, str], where: str) -> str:
    """One line for one error of pydantic: what, where, why, and what to write instead."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    where = origin.get(key, where)
    if error["type"] == "extra_forbidden":
        known = list(_section(kind, location[:-1]).model_fields)
        hint = did_you_mean(location[-1], known)
        return f"{where}: unknown key {key}.{hint} Known here: {', '.join(known)}."
    message = error["msg"].removeprefix("Value error, ").removesuffix(".")
    if not key or error["type"] == "value_error":
        return f"{where}: {message}."
    return f"{where}: {key}={error['input']!r}: {message}."


def _section(kind: type[Section], location: list[str]) -> type[Section]:
    """The class of the section at that place of the tree."""
    section: Any = kind
    for part in location:
        if part not in section.model_fields:
            continue  # the key of a mapping
        types = _types(section.model_fields[part].annotation)
        section = next(x for x in types if inspect.isclass(x) and issubclass(x, Section))
    return section


def _types(annotation: Any) -> list[Any]:
    """All types inside an annotation."""
    return [annotation, *(y for x in get_args(annotation) for y in _types(x))]
