"""Checks of arguments against the annotations of a public class or function."""

import functools as ft
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import jaxtyped

from .errors import InputError


Call = TypeVar("Call", bound=Callable[..., Any])
Record = TypeVar("Record", bound=tuple)


@dataclass(frozen=True)
class Bound:
    """In `Annotated`: what a value should be, in words, and whether it is that."""

    wanted: str
    holds: Callable[[Any], Any] = field(repr=False)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Pydantic checks the bound too, where a configuration gives the value."""
        from pydantic_core import core_schema

        def validate(x: Any) -> Any:
            if not self.holds(x):
                raise ValueError(f"Input should be {self.wanted}")
            return x

        return core_schema.no_info_after_validator_function(validate, handler(source))


def _each(holds: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """Whether it holds for a number, or for each of an array; unknown ones are allowed."""
    return lambda x: not is_known(x) or bool(holds(np.asarray(x)).all())


def above(limit: float | int) -> Bound:
    return Bound(f"greater than {limit}", _each(lambda x: x > limit))


def at_least(limit: float | int) -> Bound:
    return Bound(f"greater than or equal to {limit}", _each(lambda x: x >= limit))


def below(limit: float | int) -> Bound:
    return Bound(f"less than {limit}", _each(lambda x: x < limit))


def at_most(limit: float | int) -> Bound:
    return Bound(f"less than or equal to {limit}", _each(lambda x: x <= limit))


PositiveInt = Annotated[int, above(0)]
PositiveFloat = Annotated[float, above(0)]
NonNegativeInt = Annotated[int, at_least(0)]
NonNegativeFloat = Annotated[float, at_least(0)]
# The width of a kernel on a grid. JAX aborts the process for an array beyond 2^63 bytes.
Width = Annotated[int, above(0), at_most(9_999)]
OddWidth = Annotated[Width, Bound("odd", lambda x: x % 2 == 1)]
# Numbers from 0 and below 1, from 0 to 1, and above 0 and up to 1.
Fraction = Annotated[float, at_least(0), below(1)]
FractionOrAll = Annotated[float, at_least(0), at_most(1)]
PositiveFraction = Annotated[float, above(0), at_most(1)]

# What a value of a type of Python should be, in words.
_WORDS = {
    bool: "a valid boolean",
    int: "a valid integer",
    float: "a valid number",
    str: "a valid string",
    tuple: "a valid tuple",
    list: "a valid list",
    dict: "a valid dictionary",
    Sequence: "a list or a tuple",
    Callable: "callable",
}
_TRACED = (
    "a number of Python, for which a program is compiled, and not one that JAX traces: there "
    "is no derivative with respect to it, and no jit or vmap over it"
)

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


def checked(call: Call) -> Call:
    """A function or a class that checks the arguments of its calls against its annotations:
    types, shapes and dtypes of arrays, ranges of numbers, and that known numbers are finite. An
    `InputError` names the argument, its value, and what it should be. NumPy's numbers and
    arrays are taken wherever numbers of Python and arrays of JAX are."""
    if not inspect.isclass(call):
        return _checking(call, call.__qualname__.removesuffix(".__init__"))
    made = cast(Any, call)
    made.__init__ = _checking(made.__init__, made.__name__)
    return made


def _wanted(annotation: Any, value: Any) -> list[str]:
    """An annotation in words; empty if the value fits it."""
    kind = get_origin(annotation) or annotation
    inner = get_args(annotation)
    if isinstance(kind, TypeVar):
        inner = kind.__constraints__
        kind = kind.__bound__ or Union
    if kind is Annotated:
        bounds = (x for x in inner if isinstance(x, Bound))
        broken = (x.wanted for x in bounds if not x.holds(value))
        return _wanted(inner[0], value) or [*broken][:1]
    if kind in (Union, UnionType):
        said: list[str] = []
        for member in inner:
            wanted = _wanted(member, value)
            if not wanted:
                return []
            # That it may be left out helps nobody who gave something.
            said += [] if member is NoneType else wanted
        return said
    if kind is Literal:
        *names, last = map(repr, inner)
        fits = any(isinstance(value, type(x)) and x == value for x in inner)
        return [] if fits else [f"{', '.join(names)} or {last}" if names else last]
    if kind is Any or not inspect.isclass(kind):
        return []
    if kind in (int, float) and isinstance(value, jax.Array | np.ndarray):
        return [_TRACED if isinstance(value, Tracer) else "a number of Python (not an array)"]
    number = int, float, np.integer, np.floating
    # A truth value is no number, and a text no sequence of texts.
    excluded = {int: bool, float: bool, Sequence: str | bytes}.get(kind, ())
    if isinstance(value, excluded) or not isinstance(value, number if kind is float else kind):
        return [_WORDS.get(kind, f"an instance of {kind.__name__}")]
    if kind is float and not abs(cast(Any, value)) < math.inf:
        return ["a finite number"]
    return _wanted_inside(kind, inner, value) if inner else []


def _wanted_inside(kind: Any, inner: tuple[Any, ...], value: Any) -> list[str]:
    """The annotations of the parts of a tuple, list, mapping or generic dataclass."""
    parts = []
    if kind is tuple:
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(value) != len(kinds):
            return [f"a tuple of {len(kinds)}"]
        parts = zip(kinds, value, strict=True)
    elif issubclass(kind, Mapping):
        parts = [x for item in value.items() for x in zip(inner, item, strict=True)]
    elif issubclass(kind, Sequence):
        parts = [(inner[0], x) for x in value]
    elif is_dataclass(kind):
        kinds = dict(zip(cast(Any, kind).__parameters__, inner, strict=True))
        for field in fields(value):
            part = getattr(value, field.name)
            other = kinds.get(field.type)
            if other is not None and _wanted(other, part):
                return [
                    f"a {type(value).__name__} whose {field.name} is {other.__name__}, not "
                    f"{type(part).__name__}"
                ]
    return [text for kind, part in parts for text in _wanted(kind, part)]


def check_fields(record: Record) -> Record:
    """A named tuple whose fields are checked in the same way."""
    return _checking(type(record), type(record).__name__)(*record)


@ft.cache
def _checking(call: Callable[..., Any], name: str) -> Any:
    @ft.cache
    def interface() -> tuple[inspect.Signature, dict[str, Any]]:
        signature = inspect.signature(call, eval_str=True)
        parameters = signature.parameters.items()
        annotated = {n: p.annotation for n, p in parameters if p.annotation is not p.empty}
        return signature, annotated

    @ft.wraps(call)
    def checking(*args, **kwargs):
        signature, annotations = interface()
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(f"{name}: {_misfit(error, signature, kwargs.keys())}.") from None
        given = bound.arguments
        # In one context the shapes of all arguments have to agree.
        with jaxtyped("context"):
            for argument in filter(given.__contains__, annotations):
                kind = annotations[argument]
                given[argument] = _valid(name, argument, given[argument], kind)
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


def _valid(name: str, argument: str, value: Any, annotation: Any) -> Any:
    """The value of an argument, with numbers of Python in the place of NumPy's, and arrays of
    JAX where NumPy's do not fit; `InputError` for one that cannot be."""
    value = value.item() if isinstance(value, np.generic) else value
    hint = ""
    wanted = _wanted(annotation, value)
    if wanted:
        arrays = value if isinstance(value, tuple | list) else (value,)
        if any(map(_is_numeric, arrays)) and any("Array" in x for x in wanted):
            value = jax.tree.map(lambda x: jnp.asarray(x) if _is_numeric(x) else x, value)
            return _valid(name, argument, value, annotation)
        problem = " or ".join(dict.fromkeys(wanted)).replace("jaxlib._jax.", "")
        if _TRACED in wanted:
            problem = _TRACED
        if inspect.isclass(value):
            hint = f"; write {value.__name__}(…)"
        elif isinstance(value, str) and (meant := _module_named(value)):
            hint = f"; a name is for YAML, in Python write {meant}(…)"
        elif type(value) is list and "ndarray" in problem:
            hint = "; write np.asarray(…)"
        problem = re.sub(r"an instance of Key\[.*", "a key such as jax.random.key(0)", problem)
    else:
        readable = is_known(value) and eqx.is_inexact_array_like(value)
        places = np.argwhere(~np.isfinite(np.asarray(value))) if readable else np.empty((0, 0))
        if not len(places):
            return value
        problem = "finite"
        if places.shape[1]:
            problem += f"; {len(places)} are not, the first at {places[0].tolist()}"
    raise InputError(
        f"{name}: {argument}={_shown(value)}: {argument} should be {problem}{hint}."
    )


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


def is_known(x: Any) -> bool:
    """Whether a number or an array has values that this process can read now."""
    here = not isinstance(x, Tracer) and getattr(x, "is_fully_addressable", True)
    return here and eqx.is_array_like(x)


def _shown(value: Any) -> str:
    text = eqx.tree_pformat(value, width=10_000)
    return text if len(text) < 80 else f"{text[:76]} …"
