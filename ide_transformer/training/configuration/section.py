"""Sections of a configuration: the types of their values, and the errors for wrong ones."""

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ...errors import InputError, did_you_mean, short, shown


# The normal numbers of float32, which takes smaller ones for 0.
_LEAST = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)
# An error lists at most this many problems of a file.
_MOST_SAID = 20
# What to write instead, by the kind of the error.
_WRITE = {
    "bool_type": "; write true or false",
    "string_type": "; write a text in quotes",
    "int_type": "; write for example 8",
    "float_type": "; write for example 0.5 or 1.0e-3",
    "model_type": "; write its keys below it",
    "dict_type": "; write its keys below it",
}


def in_single_precision(value: Any) -> Any:
    """The value. Raises `ValueError` for a number that float32 cannot hold."""
    if type(value) is float and value and not _LEAST <= abs(value) <= _LARGEST:
        raise ValueError(f"a float32 is 0 or between {_LEAST:.2g} and {_LARGEST:.2g}")
    return value


def _number_of_key(key: Any) -> Any:
    try:
        return ast.literal_eval(key) if isinstance(key, str) else key
    except (SyntaxError, ValueError):
        return key


def _moment(value: Any) -> int | str:
    if type(value) is int and 0 < value < 2**31:
        return value
    part = re.fullmatch(r"(\d{1,3}(\.\d+)?)%", value) if isinstance(value, str) else None
    if part and 0 < float(part[1]) < 100:
        return value
    raise ValueError("Input should be a number of steps, or a part of them such as 50%")


def _description(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    options = value.get("options", {})
    named = isinstance(value.get("kind"), str) and isinstance(options, dict)
    if not named or value.keys() - {"kind", "options"}:
        raise ValueError("Input should be a name, or {kind: name, options: {argument: value}}")
    return value if options else value["kind"]


def folder_name(name: str) -> str:
    """The name. Raises `ValueError` if some system cannot have such a folder."""
    devices = r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?"
    name_of_folder = r"[A-Za-z0-9][A-Za-z0-9._-]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9]"
    if re.fullmatch(devices, name) or not re.fullmatch(name_of_folder, name):
        raise ValueError("no name of a folder; take letters, digits and '-_.', as in small-2")
    return name


# Runs count in int32.
Count = Annotated[int, Field(gt=0, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
# A count that is a key, which YAML and JSON give as a text.
CountAsKey = Annotated[CountOrZero, BeforeValidator(_number_of_key)]
# A step of a run, or a part of all its steps such as "50%".
Moment = Annotated[int | str, BeforeValidator(_moment)]
# A class by its name, or with arguments of its constructor; see `read`.
Description = Annotated[str | dict[str, Any], BeforeValidator(_description)]
# JAX uses 32 bits of a seed; larger seeds would draw the same weights.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# The name of a folder of results.
FolderName = Annotated[str, AfterValidator(folder_name)]


class Section(BaseModel):
    """A section of a configuration. It rejects unknown keys and converts no value, also when
    it is made in Python. Every number must fit float32, in which runs compute."""

    # A validator is built at its first use, which makes the import faster.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, strict=True, defer_build=True
    )

    def problems(self) -> Iterator[str]:
        """A message for each mistake of several keys together."""
        return iter(())

    @model_validator(mode="after")
    def _fits(self):
        for problem in self.problems():
            raise ValueError(problem)
        return self

    @field_validator("*")
    @classmethod
    def _in_single_precision(cls, value: Any) -> Any:
        return in_single_precision(value)


S = TypeVar("S", bound=Section)


def validated(kind: type[S], tree: Any, where: str, origin: dict[str, str] | None = None) -> S:
    """Makes a section from a tree of plain values.

    **Raises:** `InputError` that names every wrong key, and where it was written: the override
    that `origin` has for the key, else `where`.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(kind, x, origin or {}, where) for x in error.errors()]
        raise InputError(some_of(problems, "\n")) from None


def some_of(texts: Sequence[str], between: str) -> str:
    """The first texts, and how many more there are."""
    left = len(texts) - _MOST_SAID
    return between.join([*texts[:_MOST_SAID], *[f"and {left:,} more"] * (left > 0)])


def _problem(kind: type[Section], error: Any, origin: dict[str, str], where: str) -> str:
    """One line for an error of pydantic: what, where, why, and what to write instead."""
    location = [str(part) for part in error["loc"]]
    value = error["input"]
    key = ".".join(location)
    name = ".".join(map(short, location))
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    # The override of the key or of a section above it; else the overrides of keys that the
    # message names, or of keys below it.
    above = [".".join(location[:n]) for n in range(len(location), 0, -1)]
    given = [origin[x] for x in above if x in origin][:1]
    given = given or [text for x, text in origin.items() if x in message]
    given = given or [text for x, text in origin.items() if key and x.startswith(f"{key}.")]
    where = ", ".join(given) or where
    if error["type"] == "extra_forbidden":
        section = kind
        for part in location[:-1]:
            if part in section.model_fields:  # a key of a mapping is no field
                types = _types(section.model_fields[part].annotation)
                section = next(
                    x for x in types if inspect.isclass(x) and issubclass(x, Section)
                )
        known = list(section.model_fields)
        hint = did_you_mean(location[-1], known)
        return f"{where}: unknown key {name}.{hint} Known here: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{where}: {name} is missing."
    if not key or (error["type"] == "value_error" and isinstance(value, dict | BaseModel)):
        return f"{where}: {message}."
    write = _WRITE.get(error["type"], "")
    if write and isinstance(value, float) and value.is_integer():
        write = f"; write {value:.0f}"
    known = re.findall(r"'([^']*)'", message) if error["type"] == "literal_error" else []
    # An override of this very key already shows the value.
    where = "" if where.startswith(f"override '{key}=") else f"{where}: "
    what = f"{where}{name}={shown(value)}: {message}{write}."
    return f"{what}{did_you_mean(str(value), known)}"


def _types(annotation: Any) -> list[Any]:
    """All types inside an annotation."""
    return [annotation, *(y for x in get_args(annotation) for y in _types(x))]
