"""Checks of arguments against the annotations of a public class or function."""

import functools as ft
import inspect
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import jaxtyped
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    InstanceOf,
    NonNegativeFloat as NonNegativeFloat,
    NonNegativeInt as NonNegativeInt,
    PositiveFloat as PositiveFloat,
    PositiveInt as PositiveInt,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

from .errors import InputError


Call = TypeVar("Call", bound=Callable[..., Any])
Record = TypeVar("Record", bound=tuple)

# Numbers from 0 and below 1, from 0 to 1, and above 0 and up to 1.
Fraction = Annotated[float, Field(ge=0, lt=1)]
FractionOrAll = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]


def _every(holds: Callable[[Any], Any], wanted: str) -> AfterValidator:
    def validate(x: Any) -> Any:
        if is_known(x) and not holds(np.asarray(x)).all():
            raise ValueError(f"Input should be {wanted}")
        return x

    return AfterValidator(validate)


# Of an array, in `Annotated`.
AtLeastZero = _every(lambda x: x >= 0, "at least 0")
AboveZero = _every(lambda x: x > 0, "above 0")

# Arguments of diffrax, the ones here that have their place, and what to write.
_OF_DIFFRAX = {
    "terms": ("equation", "give the Equation, whose terms are equation.terms"),
    "y0": ("u0", "write u0=…"),
    "dt0": (
        "steps_per_interval",
        "write steps_per_interval=…, or stepsize_controller=… for adaptive steps",
    ),
    **dict.fromkeys(
        ("t0", "t1"),
        (
            "saveat",
            "depth goes from 0 to the horizon of the control; for the states on the way write "
            "saveat=diffrax.SaveAt(ts=…)",
        ),
    ),
    "adjoint": (
        "gradient",
        "write gradient=…, which takes an adjoint of diffrax too for adaptive steps",
    ),
}

OddInt = Annotated[int, Field(gt=0), _every(lambda x: x % 2 == 1, "odd")]


def checked(call: Call) -> Call:
    """A function or a class that checks the arguments of its calls against its annotations:
    types, shapes and dtypes of arrays, ranges of numbers, and that known numbers are finite. An
    `InputError` names the argument, its value, and what it should be. NumPy's numbers and
    arrays are taken wherever those of Python and JAX are."""
    if not inspect.isclass(call):
        return _checking(call, call.__qualname__.removesuffix(".__init__"))
    made = cast(Any, call)
    made.__init__ = _checking(made.__init__, made.__name__)
    return made


def adapter_of(annotation: Any) -> TypeAdapter:
    """The validator of a type, for which floating-point numbers have to be finite."""
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    annotation = _instances(annotation)
    try:
        return TypeAdapter(annotation, config=config)
    except PydanticUserError:
        # A single class that may bring a configuration of its own.
        return TypeAdapter(annotation)


def _instances(annotation: Any) -> Any:
    """Replace dataclasses in a type, of whose objects pydantic would look at the fields."""
    origin = get_origin(annotation)
    if is_dataclass(origin):
        parameters = getattr(origin, "__parameters__", ())
        kinds = zip(parameters, get_args(annotation), strict=True)
        return Annotated[
            InstanceOf[origin], AfterValidator(ft.partial(_with_parts, dict(kinds)))
        ]
    if origin in (Union, UnionType, tuple):
        members = tuple(map(_instances, get_args(annotation)))
        kind = Union if origin is UnionType else cast(Any, origin)
        return kind[members]
    if is_dataclass(annotation) or hasattr(annotation, "_fields"):
        return InstanceOf[annotation]
    return annotation


def _with_parts(kinds: Mapping[Any, Any], record: Any) -> Any:
    """Check the fields that a generic class leaves to its parameters."""
    for field in fields(record):
        kind = kinds.get(field.type)
        if inspect.isclass(kind) and not isinstance(part := getattr(record, field.name), kind):
            raise ValueError(
                f"Input should be a {type(record).__name__} whose {field.name} is "
                f"{kind.__name__}, not {type(part).__name__}"
            )
    return record


def problems_of(error: ValidationError) -> str:
    """The reasons of a failed validation, each once."""
    problems = error.errors()
    # Of a union with a class, which JSON has not, the other members say more.
    said = [x for x in problems if x["type"] != "needs_python_object"] or problems
    reasons = [problem["msg"].removeprefix("Value error, ") for problem in said]
    return " or ".join(dict.fromkeys(reasons)).replace(" or Input should be", " or")


def check_fields(record: Record) -> Record:
    """A named tuple whose fields are checked in the same way."""
    return _checking(type(record), type(record).__name__)(*record)


@ft.cache
def _checking(call: Callable[..., Any], name: str) -> Any:
    @ft.cache
    def interface() -> tuple[inspect.Signature, dict[str, TypeAdapter]]:
        signature = inspect.signature(call, eval_str=True)
        parameters = signature.parameters.items()
        annotated = {n: p.annotation for n, p in parameters if p.annotation is not p.empty}
        return signature, {argument: adapter_of(x) for argument, x in annotated.items()}

    @ft.wraps(call)
    def checking(*args, **kwargs):
        signature, adapters = interface()
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(f"{name}: {_misfit(error, signature, kwargs.keys())}.") from None
        given = bound.arguments
        # In one context the shapes of all arguments have to agree.
        with jaxtyped("context"):
            for argument in filter(given.__contains__, adapters):
                given[argument] = _valid(name, argument, given[argument], adapters[argument])
        return call(*bound.args, **bound.kwargs)

    return checking


def _misfit(error: TypeError, signature: inspect.Signature, keywords: Set[str]) -> str:
    """Why a call does not fit a signature, and what to write instead."""
    known = {name: x for name, x in signature.parameters.items() if name != "self"}
    for name in (x for x in keywords if x not in known):
        own, instead = _OF_DIFFRAX.get(name, (None, ""))
        if own in known:
            return f"{name} is an argument of diffrax.diffeqsolve; here {instead}"
    names = list(known)
    if by_name := [name for name, x in known.items() if x.kind is x.KEYWORD_ONLY]:
        names.insert(names.index(by_name[0]), "*")
    return f"{error}; its arguments are ({', '.join(names)})"


def _valid(name: str, argument: str, value: Any, adapter: TypeAdapter) -> Any:
    """The value of an argument, with numbers of Python in the place of NumPy's, and arrays of
    JAX where those of NumPy are not taken as they are; `InputError` for one that cannot be."""
    value = value.item() if isinstance(value, np.generic) else value
    hint = f"; write {value.__name__}(…)" if inspect.isclass(value) else ""
    if isinstance(value, str) and (meant := _module_named(value)):
        hint = f"; a name is for YAML, in Python write {meant}(…)"
    try:
        valid = adapter.validate_python(value, strict=True)
    except ValidationError as error:
        arrays = value if isinstance(value, tuple | list) else (value,)
        if any(map(_is_numeric, arrays)):
            return _valid(name, argument, jax.tree.map(_of_jax, value), adapter)
        problem = problems_of(error).replace("jaxlib._jax.", "")
        numbers = ("float_type", "int_type")
        if any(x["type"] in numbers and isinstance(x["input"], Tracer) for x in error.errors()):
            problem = (
                "Input should be a number of Python, for which a program is compiled, and not "
                "one that JAX traces: there is no derivative with respect to it, and no jit or "
                "vmap over it"
            )
        if type(value) is list and "ndarray" in problem:
            hint = "; write np.asarray(…)"
        problem = re.sub(r"an instance of Key\[.*", "a key such as jax.random.key(0)", problem)
    else:
        readable = is_known(value) and eqx.is_inexact_array_like(value)
        if isinstance(value, jax.Array | np.ndarray) and isinstance(valid, float):
            problem = "Input should be a number of Python, not an array"
        elif readable and not np.isfinite(np.asarray(value)).all():
            places = np.argwhere(~np.isfinite(np.asarray(value)))
            problem = "Input should be finite"
            if places.shape[-1]:
                problem += f"; {len(places)} are not, the first at {places[0].tolist()}"
        else:
            return value
    raise InputError(
        f"{name}: {argument}={_shown(value)}: {problem.replace('Input', argument, 1)}{hint}."
    ) from None


def _module_named(text: str) -> str | None:
    """The name of the equinox module that a configuration would write so: `strang(heun)` is
    `Strang`."""
    word = re.split(r"\W", text)[0].replace("_", "").lower()
    kinds = [eqx.Module]
    for kind in kinds:
        if kind.__name__.lower() == word:
            return kind.__name__
        kinds += kind.__subclasses__()
    return None


def _is_numeric(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind in "biufc"


def _of_jax(x: Any) -> Any:
    return jnp.asarray(x) if _is_numeric(x) else x


def is_known(x: Any) -> bool:
    """Whether a number or an array has values that this process can read now."""
    here = not isinstance(x, Tracer) and getattr(x, "is_fully_addressable", True)
    return here and eqx.is_array_like(x)


def _shown(value: Any) -> str:
    text = eqx.tree_pformat(value, width=10_000)
    return text if len(text) < 80 else f"{text[:76]} …"
