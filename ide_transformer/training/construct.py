"""Objects from a name and options, which are typed by the annotations of their class."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray
from pydantic import ValidationError

from ..arguments import adapter_of, problems_of
from ..equation import AbstractOperator
from ..errors import InputError
from ..models import AbstractInputs, AbstractReadOut
from .choice import AbstractChoice, Part, SchemeConfig, in_single_precision
from .names import (
    did_you_mean,
    find,
    find_function,
    is_array,
    parameters_of,
    root_of,
    short,
    shown,
)
from .reading import validated


# Arguments that no option can give.
_SUPPLIED = {"key", "make_block", "num_intervals"}
# Parts that draw weights inside of others.
_DRAWN = (AbstractOperator, AbstractInputs, AbstractReadOut)

# What constructors of the classes of a kind may ask for.
Offers: TypeAlias = Mapping[type, Mapping[str, Any]]


def construct(
    key: str,
    choice: AbstractChoice,
    base: type,
    offers: Offers = MappingProxyType({}),
    draws: PRNGKeyArray | None = None,
) -> Any:
    """The object of the kind `base` that is described at the `key` of a configuration, its
    weights drawn by `draws`. Each parameter takes the option of its name, else what is offered
    under it, else its default. An argument that is an object of this package is made in the
    same way."""
    found = find(key + choice.name_key, choice.chosen, base)
    parameters = parameters_of(found)
    types = {name: parameter.annotation for name, parameter in parameters.items()}
    options = choice.arguments(key, types)
    known = sorted(set(parameters) - _SUPPLIED)
    for name in options:
        if name not in known:
            raise InputError(
                f"{key}{choice.option_key(short(name))}: {choice.chosen} has no such option."
                f"{did_you_mean(name, known)} Known here: {', '.join(known) or 'none'}."
            )
    asked = [
        name
        for name, p in parameters.items()
        if name in options or (p.default is p.empty and p.kind is not p.VAR_KEYWORD)
    ]
    # A key for each part that draws weights; the last one is for its own.
    inner, offered = {}, dict(offers.get(root_of(base) or base, {}))
    drawn = [name for name in asked if root_of(types[name]) in _DRAWN]
    if draws is not None:
        *keys, offered["key"] = jax.random.split(draws, len(drawn) + 1) if drawn else [draws]
        inner = dict(zip(drawn, keys, strict=True))
    # An array is given only where its shape is asked for.
    arguments = {
        name: x
        for name, x in offered.items()
        if name in types and (not is_array(types[name]) or isinstance(x, types[name]))
    }
    for name in asked:
        place, nested = key + choice.option_key(name), (offers, inner.get(name))
        if name in options:
            arguments[name] = _converted(place, options[name], types[name], *nested)
        elif name not in arguments:
            kind = get_origin(types[name]) or types[name]
            if root_of(kind) is None or inspect.isabstract(kind):
                raise InputError(f"{key}: {choice.chosen} needs {name}; give {place}.")
            default = Part(kind=f"{kind.__module__}:{kind.__qualname__}")
            arguments[name] = construct(place, default, kind, *nested)
    try:
        return getattr(found, "build", found)(**arguments)
    except (InputError, OSError) as error:
        said = str(error)
        raise InputError(said if said.startswith(f"{key}.") else f"{key}: {said}") from None


def _converted(
    key: str, value: Any, annotation: Any, offers: Offers, draws: PRNGKeyArray | None
) -> Any:
    """A value of a configuration as an argument of that type."""
    union = get_origin(annotation) in (Union, UnionType)
    members = get_args(annotation) if union else (annotation,)
    if value is None and NoneType in members:
        return None
    for member in members:
        kind, root = get_origin(member) or member, root_of(member)
        if root is not None:
            section = SchemeConfig if root is diffrax.AbstractSolver else Part
            return construct(key, validated(section, value, key), kind, offers, draws)
        if kind is Callable:
            # Where the arguments are not said, it is no activation.
            name = _checked(key, value, str)
            return find_function(key, name, of_array=bool(get_args(member)))
    arrays = tuple(filter(is_array, members))
    return _as_array(key, value, arrays) if arrays else _checked(key, value, annotation)


def _as_array(key: str, value: Any, kinds: tuple[type, ...]) -> jax.Array:
    numbers = _checked(key, value, float | list)
    for number in jax.tree.leaves(numbers, is_leaf=lambda x: type(x) is not list):
        _checked(key, number, float)
    for dtype in (float, None):
        try:
            # Numbers that are written out stay numbers where shapes alone are asked for.
            with jax.ensure_compile_time_eval():
                array = jnp.asarray(numbers, dtype and jnp.result_type(dtype))
        except (TypeError, ValueError):
            break
        if isinstance(array, kinds):
            return array
    raise InputError(f"{key}={shown(value)}: expected numbers as {kinds[0]}.")


def _checked(key: str, value: Any, annotation: Any) -> Any:
    """The value, by the strict rules for JSON, where a list may be a tuple."""
    if is_dataclass(annotation):
        raise InputError(f"{key}: it cannot be written in a configuration; leave it out.")
    # Tasks are free to count in more bits.
    most = 2**63 if key.startswith("data.") else 2**31
    try:
        for leaf in jax.tree.leaves(value):
            in_single_precision(leaf)
            if type(leaf) is int and abs(leaf) >= most:
                raise ValueError(f"Input should be less than {most}")
        if annotation is inspect.Parameter.empty:
            return value
        return adapter_of(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except ValueError as error:
        said = problems_of(error) if isinstance(error, ValidationError) else error
        raise InputError(f"{key}={shown(value)}: {said}.") from None
