"""Kinds of values, and sections of a configuration that choose a class and give its options."""

import ast
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import diffrax
import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)

from ..errors import InputError
from .names import find, parameters_of, root_of, short, shown, snake_case


# The normal numbers of float32; it takes smaller ones for 0.
_LEAST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
# Schemes inside each other.
_DEEPEST = 20


def in_int32(count: int) -> int:
    if count >= 2**31:
        raise ValueError("Input should be less than 2147483648, since runs count in int32")
    return count


def in_single_precision(value: Any) -> Any:
    """The value, if float32 has it where it is a number; else `ValueError`."""
    if type(value) is float and value and not _LEAST <= abs(value) <= _LARGEST:
        raise ValueError(
            f"a number of float32 is 0 or lies between {_LEAST:.2g} and {_LARGEST:.2g}"
        )
    return value


def _below_one(fraction: float) -> float:
    if np.float32(fraction) == 1:
        raise ValueError("Input should be less than 1; float32 takes it for 1")
    return fraction


def _number_of_key(key: Any) -> Any:
    try:
        return ast.literal_eval(key) if isinstance(key, str) else key
    except (SyntaxError, ValueError):
        return key


def _moment(key: Any) -> int | float:
    number = _number_of_key(key)
    if type(number) is int and number >= 0:
        return in_int32(number)
    if type(number) is float and 0 < number < 1:
        return number
    raise ValueError("Input should be a number of steps, or a fraction of them such as 0.5")


def folder_name(name: str) -> str:
    """The name, if a folder can have it on every system; else `ValueError`."""
    devices = r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?"
    name_of_folder = r"[A-Za-z0-9][A-Za-z0-9._-]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9]"
    if re.fullmatch(devices, name) or not re.fullmatch(name_of_folder, name):
        raise ValueError(
            "it names a folder; take 1 to 100 letters, digits, '-', '_' and '.', with a letter "
            "or digit first and no '.' last, and no name of a device such as nul"
        )
    return name


Count = Annotated[int, Field(gt=0), AfterValidator(in_int32)]
CountOrZero = Annotated[int, Field(ge=0), AfterValidator(in_int32)]
Fraction = Annotated[float, Field(ge=0, lt=1), AfterValidator(_below_one)]
# A count that is a key, which YAML and JSON give as a text.
CountAsKey = Annotated[CountOrZero, BeforeValidator(_number_of_key)]
# A step of a run, or a fraction of all its steps. As a key, JSON gives it as a text.
Moment = Annotated[int | float, BeforeValidator(_moment)]
# Keys of JAX take 32 bits of a seed; others would draw the same weights.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# The name of a folder of results.
FolderName = Annotated[str, AfterValidator(folder_name)]


class Section(BaseModel):
    """A section of a configuration. Unknown keys are errors, and nothing is converted silently,
    also not in Python. A number must fit float32, since runs compute in it."""

    # A validator is built when it is first used, which saves time in the import.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, strict=True, defer_build=True
    )

    def problems(self) -> Mapping[str, Any]:
        """Keys that do not go together and what to write instead, and whether that is so."""
        return {}

    @model_validator(mode="after")
    def _fits(self):
        for problem, found in self.problems().items():
            if found:
                raise ValueError(problem)
        return self

    @field_validator("*")
    @classmethod
    def _in_single_precision(cls, value: Any) -> Any:
        return in_single_precision(value)


class AbstractChoice(Section):
    """A class by its name (its snake case, or `package.module:Class`), and options."""

    # Arguments of the class, by name.
    options: dict[str, Any] = Field(default={})
    # The field of the name, and where it is written, below the key of the choice.
    name_field: ClassVar[str] = "kind"
    name_key: ClassVar[str] = ".kind"

    @property
    def chosen(self) -> str:
        """The name."""
        return getattr(self, self.name_field)

    def option_key(self, name: str) -> str:
        """Where an option is written, below the key of the choice."""
        return f".options.{name}"

    def arguments(self, key: str, annotations: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that are given for parameters of these types."""
        return self.options


class Choice(AbstractChoice):
    """`{kind: …, options: {…}}`; the name alone will do. Options are arguments of the class,
    for example {terms: 3} of chebyshev."""

    # The name.
    kind: str

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class Part(Choice):
    """A choice inside a section; written as its name where it has no options."""

    name_key: ClassVar[str] = ""

    @model_serializer(mode="wrap")
    def _short(self, serialize: Any) -> Any:
        return serialize(self) if self.options else self.kind


class SchemeConfig(Choice):
    """A time-stepping scheme. In parentheses after its name may stand its first argument: the
    scheme inside it, `strang(heun)`, or a number, `adams_bashforth(3)`. `str` writes it so."""

    # The scheme, for example strang(heun); native is the scheme of a checkpoint.
    kind: str = "lie_trotter"
    # Scheme inside the scheme: for each operator of a splitting; for the step that half_solver,
    # residual, velocity and steady_state wrap. Default: the scheme's.
    sub_solver: "SchemeConfig | None" = None

    def __str__(self) -> str:
        first, default = _first_argument(self.kind)
        given = self.sub_solver or self.options.get(first, default)
        if isinstance(given, diffrax.AbstractSolver):
            given = SchemeConfig(kind=snake_case(type(given).__name__))
        named = isinstance(given, SchemeConfig) or type(given) is int
        return f"{self.kind}({given})" if named else self.kind

    @model_validator(mode="before")
    @classmethod
    def _argument_in_parentheses(cls, value: Any) -> Any:
        section = value if isinstance(value, dict) else {"kind": value}
        kind = section.get("kind")
        if not isinstance(kind, str) or not {*kind} & {*"()"}:
            return value
        match = re.fullmatch(r"([\w.:]+)\((.+)\)", kind.strip())
        if match is None or kind.count("(") > _DEEPEST:
            raise ValueError(
                f"{shown(kind)} is not a scheme; write for example strang(heun), with at most "
                f"{_DEEPEST} inside each other"
            )
        name, argument = match.groups()
        options = section.get("options", {})
        if argument.isdecimal() and isinstance(options, dict):
            options = {**options, _first_argument(name)[0]: int(argument)}
            return {**section, "kind": name, "options": options}
        if section.get("sub_solver") is not None:
            raise ValueError(
                f"kind={short(kind)} and sub_solver={shown(section['sub_solver'])} both give "
                "the scheme inside; set one of them to null or leave it out"
            )
        return {**section, "kind": name, "sub_solver": argument}

    def option_key(self, name: str) -> str:
        inner = name in ("sub_solver", "solver")
        return ".sub_solver" if inner else super().option_key(name)

    def arguments(self, key: str, annotations: Mapping[str, Any]) -> dict[str, Any]:
        if self.sub_solver is None:
            return self.options
        inner = [n for n, x in annotations.items() if root_of(x) is diffrax.AbstractSolver]
        if not inner:
            raise InputError(
                f"{key}.sub_solver: {self.kind} has no scheme inside it; drop it, or choose "
                f"for example {key}.kind=lie_trotter."
            )
        return {**self.options, inner[0]: self.sub_solver}


def _first_argument(kind: str) -> tuple[str, Any]:
    """The first argument of a scheme and its default; an empty name where there is none."""
    try:
        parameters = parameters_of(find("kind", kind, diffrax.AbstractSolver))
    except InputError:
        return "", None
    return next(((name, p.default) for name, p in parameters.items()), ("", None))
