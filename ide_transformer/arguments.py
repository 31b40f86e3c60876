"""Checks of arguments against the annotations of a public class or function."""

import functools as ft
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import jaxtyped

from .errors import InputError, short


Call = TypeVar("Call", bound=Callable[..., Any])
Record = TypeVar("Record", bound=tuple)


@dataclass(frozen=True)
class Bound:
    """In `Annotated`: a bound in words, whether a value meets it, and how a JSON schema says
    so."""

    text: str
    holds: Callable[[Any], Any] = field(repr=False)
    schema: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def _each(holds: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """Applies a check of numbers to all entries of an array; unknown arrays pass."""
    return lambda x: not is_known(x) or bool(holds(np.asarray(x)).all())


def above(limit: float | int) -> Bound:
    holds = _each(lambda x: x > limit)
    return Bound(f"greater than {limit}", holds, {"exclusiveMinimum": limit})


def at_least(limit: float | int) -> Bound:
    holds = _each(lambda x: x >= limit)
    return Bound(f"greater than or equal to {limit}", holds, {"minimum": limit})


def below(limit: float | int) -> Bound:
    holds = _each(lambda x: x < limit)
    return Bound(f"less than {limit}", holds, {"exclusiveMaximum": limit})


def at_most(limit: float | int) -> Bound:
    holds = _each(lambda x: x <= limit)
    return Bound(f"less than or equal to {limit}", holds, {"maximum": limit})


PositiveInt = Annotated[int, above(0)]
PositiveFloat = Annotated[float, above(0)]
NonNegativeInt = Annotated[int, at_least(0)]
NonNegativeFloat = Annotated[float, at_least(0)]
# The width of a kernel on a grid. JAX aborts the process for an array beyond 2^63 bytes.
Width = Annotated[int, above(0), at_most(9_999)]
OddWidth = Annotated[Width, Bound("odd", lambda x: x % 2 == 1)]
# Numbers of [0, 1), [0, 1] and (0, 1].
Fraction = Annotated[float, at_least(0), below(1)]
FractionOrAll = Annotated[float, at_least(0), at_most(1)]
PositiveFraction = Annotated[float, above(0), at_most(1)]

# Types of Python in words.
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
    Path: "a file or a folder, or . for the current folder",
}
_TRACED = (
    "a number of Python, not one that JAX traces, since each value compiles another program: "
    "do not differentiate, jit or vmap over it"
)

# Dtypes of jaxtyping in words.
_NUMBERS = {"Float": "floats", "Int": "integers", "Bool": "truth values"}


def checked(call: Call) -> Call:
    """Makes a function or a class check its arguments against its annotations: types, shapes
    and dtypes of arrays, ranges of numbers, and that known numbers are finite. An `InputError`
    names the argument, its value, and what it should be. NumPy's numbers and arrays are
    converted to Python's and JAX's."""
    if not inspect.isclass(call):
        return _checking(call, call.__qualname__.removesuffix(".__init__"))
    cls = cast(Any, call)
    cls.__init__ = _checking(cls.__init__, cls.__name__)
    return cls


def describe_misfit(annotation: Any, value: Any) -> list[str]:
    """Describes how a value misses its annotation; empty if it fits."""
    kind = get_origin(annotation) or annotation
    inner = get_args(annotation)
    if isinstance(kind, TypeVar):
        inner = kind.__constraints__
        kind = kind.__bound__ or Union
    if kind is Annotated:
        bounds = (x for x in inner if isinstance(x, Bound))
        broken = (x.text for x in bounds if not x.holds(value))
        return describe_misfit(inner[0], value) or [*broken][:1]
    if kind in (Union, UnionType):
        texts: list[str] = []
        for member in inner:
            misfits = describe_misfit(member, value)
            if not misfits:
                return []
            # "None" would not help, since a value was passed.
            texts += [] if member is NoneType else misfits
        return texts
    if kind is Literal:
        *names, last = map(repr, inner)
        fits = any(isinstance(value, type(x)) and x == value for x in inner)
        return [] if fits else [f"{', '.join(names)} or {last}" if names else last]
    if kind is Any or not inspect.isclass(kind):
        return []
    if kind in (int, float) and isinstance(value, jax.Array | np.ndarray):
        return [_TRACED if isinstance(value, Tracer) else "a number of Python (not an array)"]
    numbers = int, float, np.integer, np.floating
    # A boolean is not a number, and a string is not a sequence of strings.
    excluded = {int: bool, float: bool, Sequence: str | bytes}.get(kind, ())
    if hasattr(kind, "dim_str"):
        return [] if isinstance(value, kind) else [_array_in_words(kind)]
    if isinstance(value, excluded) or not isinstance(value, numbers if kind is float else kind):
        return [_WORDS.get(kind, f"an instance of {kind.__name__}")]
    if kind is float and not abs(cast(Any, value)) < math.inf:
        return ["a finite number"]
    return _misfits_inside(kind, inner, value) if inner else []


def _misfits_inside(kind: Any, inner: tuple[Any, ...], value: Any) -> list[str]:
    """Describes the misfits inside a tuple, list, mapping or generic dataclass."""
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
            if other is not None and describe_misfit(other, part):
                return [
                    f"a {type(value).__name__} whose {field.name} is {other.__name__}, not "
                    f"{type(part).__name__}"
                ]
    return [text for kind, part in parts for text in describe_misfit(kind, part)]


def check_fields(record: Record) -> Record:
    """Checks the fields of a named tuple against their annotations."""
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
            raise InputError(f"{name}: {_misfit(error, signature)}.") from None
        arguments = bound.arguments
        # In one context the shapes of all arguments have to agree.
        with jaxtyped("context"):
            for argument in filter(arguments.__contains__, annotations):
                kind = annotations[argument]
                arguments[argument] = _valid(name, argument, arguments[argument], kind)
        return call(*bound.args, **bound.kwargs)

    return checking


def _misfit(error: TypeError, signature: inspect.Signature) -> str:
    """Describes why a call does not fit a signature, and lists its arguments."""
    parameters = {name: x for name, x in signature.parameters.items() if name != "self"}
    names = list(parameters)
    if by_name := [name for name, x in parameters.items() if x.kind is x.KEYWORD_ONLY]:
        names.insert(names.index(by_name[0]), "*")
    return f"{error}; its arguments are ({', '.join(names)})"


def _valid(name: str, argument: str, value: Any, annotation: Any) -> Any:
    """The value of an argument, with NumPy's numbers and arrays converted if needed. Raises
    `InputError` if it does not fit its annotation."""
    value = value.item() if isinstance(value, np.generic) else value
    misfits = describe_misfit(annotation, value)
    if misfits:
        arrays = value if isinstance(value, tuple | list) else (value,)
        if any(map(_is_numeric, arrays)) and any("an array of" in x for x in misfits):
            value = jax.tree.map(lambda x: jnp.asarray(x) if _is_numeric(x) else x, value)
            return _valid(name, argument, value, annotation)
        problem = _TRACED if _TRACED in misfits else " or ".join(dict.fromkeys(misfits))
    else:
        readable = is_known(value) and eqx.is_inexact_array_like(value)
        places = np.argwhere(~np.isfinite(np.asarray(value))) if readable else np.empty((0, 0))
        if not len(places):
            return value
        problem = "finite"
        if places.shape[1]:
            problem += f"; {len(places)} are not, the first at {places[0].tolist()}"
    text = short(eqx.tree_pformat(value, width=10_000))
    raise InputError(f"{name}: {argument}={text}: {argument} should be {problem}.")


def _array_in_words(kind: Any) -> str:
    """An annotation of jaxtyping, such as "an array of floats [..., tokens, features]"."""
    numbers = kind.dtype.__name__
    if numbers in ("Key", "UInt32"):
        return "a key such as jax.random.key(0)"
    axes = ["..." if axis[0] == "*" else axis for axis in kind.dim_str.split()]
    words = f"[{', '.join(axes)}]" if axes else "without axes"
    return f"an array of {_NUMBERS.get(numbers, 'numbers')} {words}"


def _is_numeric(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind in "biufc"


def is_known(x: Any) -> bool:
    """Whether a number or an array has values that this process can read now."""
    has_values = not isinstance(x, Tracer) and getattr(x, "is_fully_addressable", True)
    return has_values and eqx.is_array_like(x)
