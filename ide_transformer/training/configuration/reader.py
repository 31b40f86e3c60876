"""Reads the values of a configuration, by the signatures of the constructors that take them.

A class is written by its name, or with arguments, `{kind: name, options: {argument: value}}`.
`resolve` finds the class and checks the names and types of its arguments. The `Spec` that it
returns makes the object when the sizes of the model and the random keys are known."""

import abc
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Generic, TypeAlias, TypeVar, Union, get_args, get_origin

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ...arguments import describe_misfit
from ...errors import ConfigError, at, did_you_mean, short, shown
from ...integration import Mesh
from .key import Key, is_below
from .names import KINDS, find, find_function, is_array, kind_of, parameters_of, snake_case


T = TypeVar("T")

# By kind, arguments for its constructors, by name.
Offers: TypeAlias = Mapping[type, Mapping[str, Any]]
NO_OFFERS: Offers = MappingProxyType({})


class AbstractKeyed(abc.ABC):
    """A type whose values are written as keys, without the name of a class."""

    @classmethod
    @abc.abstractmethod
    def read(cls, tree: Any, key: Key) -> "AbstractKeyed":
        """Reads the value at a key."""


@dataclasses.dataclass(frozen=True, eq=False)
class Spec(Generic[T]):
    """A class with checked arguments, from which `make` makes an object.

    **Attributes:**

    - `name`: the name of the class, as it is written.
    - `part`: the class, or the function that makes the object.
    - `root`: the class in `KINDS` of which the object is an instance.
    - `options`: the checked arguments by name; parts among them are `Spec`s.
    - `tree`: the class and its arguments, as they are written. Equal trees make equal `Spec`s.
    - `key`: the key at which it is written, see `Key`.
    """

    name: str
    part: Callable[..., T]
    root: type
    options: Mapping[str, Any]
    tree: Any
    key: Key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.tree == other.tree

    def __hash__(self) -> int:
        return hash(repr(self.tree))

    def __repr__(self) -> str:
        return repr(self.tree)

    def __str__(self) -> str:
        """The name, with the scheme inside it, such as `strang(heun)`."""
        first, parameter = next(iter(parameters_of(self.part).items()), ("", None))
        inner = self.options.get(first, parameter and parameter.default)
        if isinstance(inner, diffrax.AbstractSolver):
            inner = resolve_part(self.root, snake_case(type(inner).__name__), self.key)
        is_inner = isinstance(inner, Spec) or type(inner) is int
        return f"{self.name}({inner})" if is_inner else self.name

    def make(self, offers: Offers = NO_OFFERS, *, draws: PRNGKeyArray | None = None) -> T:
        """Makes the object. A parameter takes the option of its name, else the argument of its
        name in `offers`, else its default. If it has none of these and its type is a class in
        `KINDS`, the class is made with its defaults.

        **Arguments:**

        - `offers`: arguments by kind and name, such as the sizes in the section `model`.
        - `draws`: the random key of the weights. Each part that draws weights gets its own.

        **Raises:** `InputError` that begins with the key and its place.
        """
        parameters = parameters_of(self.part)
        offered = dict(offers.get(self.root, {}))
        required = [x for x in parameters if x in self.options or _is_required(parameters[x])]
        # A random key for each part that draws weights, and one for the object's own weights.
        drawing = [x for x in required if _draws(parameters[x].annotation)]
        keys: dict[str, PRNGKeyArray] = {}
        if draws is not None:
            *inner, last = jax.random.split(draws, len(drawing) + 1) if drawing else [draws]
            keys = dict(zip(drawing, inner, strict=True))
            offered["key"] = last
        arguments = {
            x: offered[x]
            for x in parameters
            if x in offered and _takes(parameters[x], offered[x])
        }
        for x in required:
            if x in self.options:
                arguments[x] = _make(self.options[x], offers, keys.get(x))
            elif x not in arguments:
                part = default_part(
                    parameters[x].annotation, self.key / "options" / x, self.name
                )
                arguments[x] = part.make(offers, draws=keys.get(x))
        with at(self.key):
            try:
                return getattr(self.part, "build", self.part)(**arguments)
            except OSError as error:
                raise ConfigError(f"{self.key}: {error}") from None


def _make(value: Any, offers: Offers, draws: PRNGKeyArray | None) -> Any:
    """The value of an option: a part is made, an array of numbers is put on the device."""
    if isinstance(value, Spec):
        return value.make(offers, draws=draws)
    if isinstance(value, np.ndarray):
        dtype = jnp.result_type(float) if value.dtype == float else None
        # The array has values, also while a model is built from shapes.
        with jax.ensure_compile_time_eval():
            return jnp.asarray(value, dtype)
    return value


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD


def _draws(annotation: Any) -> bool:
    kind = kind_of(annotation)
    return kind is not None and KINDS[kind].draws


def _takes(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether an offered array has the shape of the annotation; other values always fit."""
    kind = parameter.annotation
    return not is_array(kind) or isinstance(value, kind)


def resolve(annotation: Any, tree: Any, key: Key | str = "") -> Any:
    """Checks a value of YAML against the type that a key has, and returns what it describes: a
    `Spec` of a class, a section, a mesh, or a plain value. Imports code that it names; reads
    no data, and makes no array of JAX.

    **Raises:** `InputError` that begins with the key and its place, and names the value, what
    is accepted and the nearest name.
    """
    key = Key(key) if isinstance(key, str) else key
    written = tree
    members = members_of(annotation)
    if (tree is None and NoneType in members) or isinstance(tree, Spec | AbstractKeyed | Mesh):
        return tree
    for member in members:
        kind = get_origin(member) or member
        inner = get_args(member)
        if kind is Spec and get_origin(inner[0]) is Callable:
            name = _value(str, tree, key)
            return Spec(name, find_function(key, name), inner[0], {}, name, key)
        if kind is Spec:
            return resolve_part(inner[0], tree, key)
        if inspect.isclass(kind) and issubclass(kind, AbstractKeyed):
            return kind.read(tree, key)
        if kind is Mesh:
            return _read_mesh(tree, key)
        if kind is tuple and _is_resolved(inner[0]) and isinstance(tree, list | tuple):
            tree = tuple(resolve(inner[0], x, key / i) for i, x in enumerate(tree))
        elif kind is dict and _is_resolved(inner[1]) and isinstance(tree, dict):
            tree = {name: resolve(inner[1], x, key / name) for name, x in tree.items()}
        elif kind_of(member) is not None:
            return resolve_part(member, tree, key)
        elif kind is Callable:
            # Only an activation has annotated arguments.
            return find_function(key, _value(str, tree, key), of_array=bool(inner))
    if arrays := tuple(filter(is_array, members)):
        return _array(arrays, tree, key)
    return _value(annotation, tree, key, written)


def members_of(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, else the type alone, without the bounds of `Annotated`."""
    if get_origin(annotation) is Annotated:
        return members_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(x for member in get_args(annotation) for x in members_of(member))
    return (annotation,)


def _is_resolved(annotation: Any) -> bool:
    """Whether values of a type are `Spec`s, sections or meshes."""
    kind = get_origin(annotation) or annotation
    return inspect.isclass(kind) and issubclass(kind, Spec | AbstractKeyed | Mesh)


def _read_mesh(tree: Any, key: Key) -> Mesh:
    if not isinstance(tree, dict):
        raise ConfigError(f"{key}={shown(tree)}: expected keys with values.")
    arguments = check_options(Mesh, "a mesh", tree, key.__truediv__)
    with at(key):
        return Mesh(**arguments)


def resolve_part(kind: Any, tree: Any, key: Key) -> Spec:
    """The `Spec` of a class of a kind, from its name, or its name and its options. A scheme may
    have its first argument in parentheses: `strang(heun)`, `adams_bashforth(3)`."""
    section = tree if isinstance(tree, dict) else {"kind": tree}
    name = section.get("kind")
    options = section.get("options", {})
    unknown = section.keys() - {"kind", "options"}
    if not isinstance(name, str) or not isinstance(options, dict) or unknown:
        raise ConfigError(
            f"{key}={shown(tree)}: expected a name, or {{kind: name, options: {{argument: "
            "value}}."
        )
    return spec_of(kind, name, options, key, key / "kind" if tree is section else key)


def spec_of(
    kind: Any,
    name: str,
    options: Mapping[str, Any],
    key: Key,
    name_key: Key,
    place: Callable[[str], Key] | None = None,
) -> Spec:
    """The `Spec` of a class of a kind.

    **Arguments:**

    - `options`: its arguments, as they are written.
    - `key`, `name_key`: the key of the class, and of its name.
    - `place`: maps an argument to its key. Default: below `options`.
    """
    place = place or (key / "options").__truediv__
    kind = get_origin(kind) or kind
    root = kind_of(kind) or kind
    label = name
    arguments = dict(options)
    if root is diffrax.AbstractSolver and {*name} & {*"()"}:
        label, first, inner = _parse_scheme(name, name_key)
        if first in options:
            raise ConfigError(f"{place(first)}: {short(name)} sets it too; drop one of them.")
        arguments = {first: inner, **options}
    part = find(name_key, label, kind)
    return Spec(
        name=label,
        part=part,
        root=root,
        options=check_options(part, label, arguments, place, KINDS[root].offers),
        tree={"kind": name, "options": dict(options)} if options else name,
        key=key,
    )


def _parse_scheme(name: str, key: Key) -> tuple[str, str, Any]:
    """Splits `strang(heun)` into a name, its first parameter and the value of that."""
    match = re.fullmatch(r"([\w.:]+)\((.+)\)", name.strip())
    if match is None:
        raise ConfigError(
            f"{key}={short(name)}: it is not a scheme; use a name such as strang(heun)."
        )
    label, inner = match.groups()
    first = next(iter(parameters_of(find(key, label, diffrax.AbstractSolver))), None)
    if first is None:
        raise ConfigError(f"{key}={short(name)}: {label} takes nothing in parentheses.")
    return label, first, int(inner) if inner.isdecimal() else inner


def default_part(annotation: Any, key: Key, name: str) -> Spec:
    """The `Spec` of the class that a parameter without a default needs, with its defaults."""
    kind = get_origin(annotation) or annotation
    if kind_of(kind) is None or inspect.isabstract(kind):
        raise ConfigError(f"{key} is missing; {name} needs it.")
    return spec_of(kind, f"{kind.__module__}:{kind.__qualname__}", {}, key, key)


def check_options(
    part: Any,
    name: str,
    options: Mapping[str, Any],
    place: Callable[[str], Key],
    offers: Set[str] | None = None,
) -> dict[str, Any]:
    """Checks the arguments of a constructor, as they are written.

    **Arguments:**

    - `name`: the constructor, for errors.
    - `place`: maps an argument to its key.
    - `offers`: the arguments that a run passes; `None` if that is not known yet.

    **Raises:** `InputError` for a name that the constructor does not have, a value of another
    type, and a missing argument.
    """
    parameters = parameters_of(part)
    supplied = {"key", "make_block", "layers"} if "make_block" in parameters else {"key"}
    names = sorted(parameters.keys() - supplied)
    for x in options:
        if x not in names:
            raise unknown_key(place(x), options[x], x, names, f"{name} has no such option")
    for x in names:
        is_missing = offers is not None and x not in options and x not in offers
        if is_missing and _is_required(parameters[x]):
            default_part(parameters[x].annotation, place(x), name)
    return {x: resolve(parameters[x].annotation, y, place(x)) for x, y in options.items()}


def unknown_key(
    key: Key, value: Any, name: str, names: Iterable[str], problem: str = "unknown key"
) -> ConfigError:
    """The error for a key that is none of these names."""
    return ConfigError(
        f"{key}={shown(value)}: {problem}.{did_you_mean(name, names)} Known here: "
        f"{', '.join(sorted(names)) or 'none'}."
    )


def _array(kinds: tuple[type, ...], tree: Any, key: Key) -> np.ndarray:
    """Numbers as an array of NumPy, whose shape and kind of numbers fit one of the types."""
    _check_numbers(tree, key)
    for dtype in (float, None):
        try:
            array = np.asarray(tree, dtype)
        except (OverflowError, TypeError, ValueError):
            break
        if any(isinstance(array, _of_numpy(kind)) for kind in kinds):
            return array
    raise ConfigError(f"{key}={shown(tree)}: expected numbers as {kinds[0]}.")


def _of_numpy(kind: Any) -> Any:
    """The type of jaxtyping for arrays of NumPy instead of JAX."""
    return kind.dtype[np.ndarray, kind.dim_str]


def _check_numbers(tree: Any, key: Key) -> None:
    """Raises unless a tree is a number, or lists of numbers inside each other."""
    _value(float | list, tree, key)
    for entry in tree if isinstance(tree, list) else ():
        _check_numbers(entry, key)


def _value(annotation: Any, tree: Any, key: Key, written: Any = None) -> Any:
    """A plain value of a type. Integers are below 2³¹, seeds 2³², options of data 2⁶³. Errors
    show the value as it is `written`, by default as it is."""
    written = tree if written is None else written
    if dataclasses.is_dataclass(annotation):
        raise ConfigError(f"{key} cannot be set in a configuration; remove it.")
    name = key.name
    most = 2**63 if is_below(name, "data") else 2**32 if name.endswith("seed") else 2**31
    if any(abs(x) >= most for x in _integers(tree)):
        raise ConfigError(f"{key}={shown(written)}: expected less than {most}.")
    if annotation is inspect.Parameter.empty:
        return tree
    value = _convert(annotation, tree)
    if misfits := describe_misfit(annotation, value):
        expected = " or ".join(dict.fromkeys(misfits))
        raise ConfigError(f"{key}={shown(written)}: expected {expected}.")
    return value


def _integers(tree: Any) -> Iterator[int]:
    """The integers in a value and its lists. A class inside reads its own options."""
    if type(tree) is int:
        yield tree
    for entry in tree if isinstance(tree, list) else ():
        yield from _integers(entry)


def _convert(annotation: Any, tree: Any) -> Any:
    """Converts a value of YAML to a type: lists to tuples, texts to paths, whole numbers to
    floats. A value that fits no type stays unchanged."""
    kind = get_origin(annotation) or annotation
    inner = get_args(annotation)
    if kind is Annotated:
        return _convert(inner[0], tree)
    if kind in (Union, UnionType):
        values = [_convert(member, tree) for member in inner]
        fitting = (x for x, y in zip(values, inner, strict=True) if not describe_misfit(y, x))
        return next(fitting, tree)
    if kind is Path and isinstance(tree, str) and tree:
        return Path(tree)
    if kind is float and type(tree) is int:
        return float(tree)
    if kind is tuple and isinstance(tree, list) and inner:
        kinds = inner[:1] * len(tree) if inner[-1] is ... else inner
        return tuple(map(_convert, kinds, tree)) if len(kinds) == len(tree) else tuple(tree)
    if kind in (list, Sequence) and isinstance(tree, list) and inner:
        return [_convert(inner[0], x) for x in tree]
    if kind in (dict, Mapping) and isinstance(tree, dict) and inner:
        return {name: _convert(inner[1], x) for name, x in tree.items()}
    return tree
