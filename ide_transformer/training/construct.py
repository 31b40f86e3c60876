"""Objects from a name and options, which are typed by the annotations of their class."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

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
from .names import did_you_mean, find, find_function, is_array, parameters_of, root_of, shown
from .reading import validated


# Arguments that no option can give.
_SUPPLIED = {"key", "make_block", "num_intervals"}


class Offers(NamedTuple):
    """Arguments that the rest of a configuration supplies: for each base class what its
    constructors may ask for, and the key that draws weights."""

    arguments: Mapping[type, Mapping[str, Any]]
    key: PRNGKeyArray | None = None

    def to(self, root: type) -> dict[str, Any]:
        """The arguments for a class of that kind."""
        offered = dict(self.arguments.get(root, {}))
        return offered if self.key is None else {**offered, "key": self.key}


def construct(key: str, choice: AbstractChoice, base: type, offers: Offers = Offers({})) -> Any:
    """The object that a configuration describes.

    Each parameter of its constructor, or of its class method `build` where it has one, takes
    the option of that name, else what is offered under that name, else its default. An
    argument that is an object of this package is made in the same way.

    **Arguments:**

    - `key`: the place in the configuration, for errors.
    - `base`: the class that is wanted.

    **Raises:** `InputError` that names the option in error.
    """
    found = find(key + choice.kind_key, choice.chosen, base)
    make = getattr(found, "build", found)
    parameters = parameters_of(make)
    annotations = {name: p.annotation for name, p in parameters.items()}
    options = choice.arguments(key, annotations)
    known = sorted(set(parameters) - _SUPPLIED)
    for name in options:
        if name not in known:
            raise InputError(
                f"{choice.key_of_option(key, name)}: {choice.chosen} has no such option."
                f"{did_you_mean(name, known)} Known here: {', '.join(known) or 'none'}."
            )
    asked = [
        name
        for name, p in parameters.items()
        if name in options or (p.default is p.empty and p.kind is not p.VAR_KEYWORD)
    ]
    drawn = AbstractOperator, AbstractInputs, AbstractReadOut
    own, inner = _split_key(offers, [n for n in asked if root_of(annotations[n]) in drawn])
    # An array is given only where its shape is asked for.
    arguments = {
        name: x
        for name, x in own.to(root_of(base) or base).items()
        if name in annotations
        and (not is_array(annotations[name]) or isinstance(x, annotations[name]))
    }
    for name in asked:
        place, nested = choice.key_of_option(key, name), offers._replace(key=inner.get(name))
        if name in options:
            arguments[name] = converted(place, options[name], annotations[name], nested)
        elif name not in arguments:
            kind = get_origin(annotations[name]) or annotations[name]
            if root_of(kind) is None or inspect.isabstract(kind):
                raise InputError(f"{key}: {choice.chosen} needs {name}; give {place}.")
            default = Part(kind=f"{kind.__module__}:{kind.__qualname__}")
            arguments[name] = construct(place, default, kind, nested)
    try:
        return make(**arguments)
    except (InputError, OSError) as error:
        raise InputError(f"{key}: {error}") from None


def takes(found: Callable[..., Any], name: str) -> bool:
    """Whether `construct` gives an argument of that name to a class where it is offered."""
    return name in parameters_of(getattr(found, "build", found))


def converted(key: str, value: Any, annotation: Any, offers: Offers = Offers({})) -> Any:
    """A value of a configuration as an argument of that type.

    **Raises:** `InputError` where it is of another type; nothing is converted silently.
    """
    union = get_origin(annotation) in (Union, UnionType)
    members = get_args(annotation) if union else (annotation,)
    if value is None and NoneType in members:
        return None
    for member in members:
        root = root_of(member)
        if root is not None:
            section = SchemeConfig if root is diffrax.AbstractSolver else Part
            choice = validated(section, value, key)
            return construct(key, choice, get_origin(member) or member, offers)
        if (get_origin(member) or member) is Callable:
            # Where the arguments are not said, it is no activation.
            return find_function(
                key, _checked(key, value, str), of_array=bool(get_args(member))
            )
    arrays = tuple(filter(is_array, members))
    if arrays:
        return _as_array(key, value, arrays)
    return _checked(key, value, annotation)


def _split_key(offers: Offers, inner: list[str]) -> tuple[Offers, dict[str, PRNGKeyArray]]:
    """A key for each part inside an object; the last one is for its own weights."""
    if offers.key is None or not inner:
        return offers, {}
    *keys, last = jax.random.split(offers.key, len(inner) + 1)
    return offers._replace(key=last), dict(zip(inner, keys, strict=True))


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
    except ValidationError as error:
        raise InputError(f"{key}={shown(value)}: {problems_of(error)}.") from None
    except ValueError as error:
        raise InputError(f"{key}={shown(value)}: {error}.") from None
