"""Builds objects from a configuration, by the signatures of their constructors.

A class is set by its name in snake case, by `package.module:Class`, or with arguments, `{kind:
name, options: {argument: value}}`. Names are looked up in the package, then in the modules of
entry points in the group `ide_transformer.parts`."""

import contextlib
import functools as ft
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType, NoneType, UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

import diffrax
import jax
import jax.numpy as jnp
import jaxtyping
from jaxtyping import PRNGKeyArray

from ... import dynamics, equation, integration, models, solvers, tasks
from ...arguments import describe_misfit
from ...errors import InputError, did_you_mean, short, shown
from .. import trackers
from ..steps import growth
from .section import Converted, Section
from .text import NAME_OF_CODE


# The kinds of classes that a configuration names, and the packages that are searched for them.
KINDS: dict[type, tuple[ModuleType, ...]] = {
    equation.AbstractOperator: (equation,),
    equation.AbstractConstraint: (equation,),
    equation.AbstractPositions: (equation,),
    equation.AbstractBasis: (equation,),
    equation.AbstractControl: (equation,),
    diffrax.AbstractSolver: (diffrax, solvers),
    integration.AbstractGradient: (integration,),
    models.Model: (models,),
    models.AbstractInputs: (models,),
    models.AbstractReadOut: (models,),
    tasks.AbstractTask: (tasks,),
    dynamics.AbstractCost: (dynamics,),
    trackers.AbstractTracker: (trackers,),
    growth.AbstractGrowth: (growth,),
}
# Kinds of parts that draw weights, also inside other parts.
_DRAWN = (equation.AbstractOperator, models.AbstractInputs, models.AbstractReadOut)
# The deepest nesting of schemes.
_DEEPEST = 20
# The most characters of a name `package.module:Class`.
_LONGEST_NAME = 500

# By kind, arguments for its constructors, by name.
Offers: TypeAlias = Mapping[type, Mapping[str, Any]]


def read(
    annotation: Any,
    tree: Any,
    key: str,
    *,
    offers: Offers = MappingProxyType({}),
    draws: PRNGKeyArray | None = None,
    beside: Collection[str] = (),
) -> Any:
    """The object of type `annotation` that a tree describes at the `key` of a configuration.

    A parameter of a constructor takes the option of its name, else the argument of its name in
    `offers`, else its default. If it has none of these and its type is a class in `KINDS`, the
    class is made with its defaults.

    **Arguments:**

    - `offers`: arguments by kind and name, such as the sizes in the section `model`.
    - `draws`: the random key of the weights. Each part that draws weights gets its own.
    - `beside`: options that are set beside the name, not under `options`.

    **Raises:** `InputError` that names the key, its value, and what to set instead.
    """
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    members = get_args(plain) if get_origin(plain) in (Union, UnionType) else (plain,)
    if tree is None and NoneType in members:
        return None
    for member in members:
        kind = get_origin(member) or member
        inner = get_args(member)
        if _has_keys(kind):
            return _read_keys(kind, tree, key)
        if kind is tuple and any(map(_has_keys, inner)) and isinstance(tree, list):
            tree = tuple(read(inner[0], x, f"{key}.{i}") for i, x in enumerate(tree))
        elif kind is dict and any(map(_has_keys, inner)) and isinstance(tree, dict):
            tree = {name: read(inner[1], x, f"{key}.{name}") for name, x in tree.items()}
        elif kind_of(member) is not None:
            name, name_key, options = parse_description(tree, key)
            part = find(key + name_key, name, kind)

            def place(option: str) -> str:
                return f"{key}.{option}" if option in beside else f"{key}.options.{option}"

            offered = offers.get(kind_of(kind) or kind, {})
            arguments = _arguments(part, name, options, place, offers, offered, draws)
            with _naming(key):
                return getattr(part, "build", part)(**arguments)
        elif kind is Callable:
            # Only an activation has annotated arguments.
            return find_function(key, _value(str, tree, key), of_array=bool(inner))
    if arrays := tuple(filter(is_array, members)):
        return _array(arrays, tree, key)
    return _value(annotation, tree, key)


def _has_keys(kind: Any) -> bool:
    """Whether arguments of a class stand at its key without the name of the class."""
    return inspect.isclass(kind) and issubclass(kind, Section | integration.Mesh)


def _read_keys(kind: type, tree: Any, key: str) -> Any:
    """A section or a mesh at a key; at no key, the whole configuration."""
    tree = kind.complete(tree) if issubclass(kind, Section) else tree
    if not isinstance(tree, dict):
        place = f"{key}=" if key else ""
        raise InputError(f"{place}{shown(tree)}: expected keys with values.")
    prefix = f"{key}." if key else ""
    arguments = _arguments(kind, key or "a configuration", tree, lambda x: f"{prefix}{x}")
    with _naming(key):
        return kind(**arguments)


@contextlib.contextmanager
def _naming(key: str) -> Iterator[None]:
    """Puts the key before the error of a constructor, unless the error begins with it."""
    try:
        yield
    except (InputError, OSError) as error:
        where = "" if not key or str(error).startswith(f"{key}.") else f"{key}: "
        raise InputError(f"{where}{error}") from None


def _arguments(
    part: Any,
    name: str,
    options: Mapping[str, Any],
    place: Callable[[str], str],
    offers: Offers = MappingProxyType({}),
    offered: Mapping[str, Any] = MappingProxyType({}),
    draws: PRNGKeyArray | None = None,
) -> dict[str, Any]:
    """The arguments of a constructor: its options, then what is `offered`, then defaults. In
    errors `name` is the constructor, and `place` maps an option to its key."""
    parameters = parameters_of(part)
    supplied = {"key", "make_block", "layers"} if "make_block" in parameters else {"key"}
    option_names = sorted(parameters.keys() - supplied)
    for option in options:
        if option not in option_names:
            raise InputError(
                f"{place(short(option))}: {name} has no such option."
                f"{did_you_mean(option, option_names)} Known here: "
                f"{', '.join(option_names) or 'none'}."
            )
    required = [
        x
        for x, p in parameters.items()
        if x in options or (p.default is p.empty and p.kind is not p.VAR_KEYWORD)
    ]
    # A random key for each part that draws weights, and one for the object's own weights.
    drawing = [x for x in required if kind_of(parameters[x].annotation) in _DRAWN]
    keys: dict[str, PRNGKeyArray] = {}
    if draws is not None:
        *inner, last = jax.random.split(draws, len(drawing) + 1) if drawing else [draws]
        keys = dict(zip(drawing, inner, strict=True))
        offered = {**offered, "key": last}
    arguments = {}
    for x in parameters.keys() & offered.keys():
        # An offered array is used only if it has the shape of the annotation.
        kind = parameters[x].annotation
        if not is_array(kind) or isinstance(offered[x], kind):
            arguments[x] = offered[x]
    for x in required:
        annotation = parameters[x].annotation
        if x in options:
            tree = options[x]
        elif x in arguments:
            continue
        else:
            kind = get_origin(annotation) or annotation
            if kind_of(kind) is None or inspect.isabstract(kind):
                raise InputError(f"{place(x)} is missing; {name} needs it.")
            tree = f"{kind.__module__}:{kind.__qualname__}"
        arguments[x] = read(annotation, tree, place(x), offers=offers, draws=keys.get(x))
    return arguments


def parse_description(tree: Any, key: str) -> tuple[str, str, dict[str, Any]]:
    """Returns the name of a class, the rest of the key at which the name is, and its options. A
    scheme may have its first argument in parentheses: `strang(heun)`, `adams_bashforth(3)`."""
    section = tree if isinstance(tree, dict) else {"kind": tree}
    name_key = "name" if "name" in section else "kind"
    name = section.get(name_key)
    options = section.get("options", {})
    unknown = section.keys() - {name_key, "options"}
    if not isinstance(name, str) or not isinstance(options, dict) or unknown:
        raise InputError(
            f"{key}={shown(tree)}: expected a name, or {{kind: name, options: {{argument: "
            "value}}."
        )
    name_key = f".{name_key}" if isinstance(tree, dict) else ""
    if not {*name} & {*"()"}:
        return name, name_key, options
    match = re.fullmatch(r"([\w.:]+)\((.+)\)", name.strip())
    if match is None or name.count("(") > _DEEPEST:
        raise InputError(
            f"{key}{name_key}: {shown(name)} is not a scheme; use a name such as strang(heun), "
            f"at most {_DEEPEST} inside each other."
        )
    name, inner = match.groups()
    parameters = parameters_of(find(key + name_key, name, diffrax.AbstractSolver))
    first = next(iter(parameters), None)
    if first is None or first in options:
        raise InputError(
            f"{key}{name_key}: {name} takes nothing in parentheses"
            f"{f' beside options.{first}; drop one' if first in options else ''}."
        )
    return name, name_key, {first: int(inner) if inner.isdecimal() else inner, **options}


def spell_scheme(tree: Any) -> str:
    """The name of a scheme with the scheme inside it, for tables, such as `strang(heun)`."""
    name, _, options = parse_description(tree, "solver")
    try:
        parameters = parameters_of(find("solver", name, diffrax.AbstractSolver))
    except InputError:
        return name
    first, parameter = next(iter(parameters.items()), ("", None))
    inner = options.get(first, parameter and parameter.default)
    if isinstance(inner, diffrax.AbstractSolver):
        inner = snake_case(type(inner).__name__)
    if isinstance(inner, str | dict):
        return f"{name}({spell_scheme(inner)})"
    return f"{name}({inner})" if type(inner) is int else name


def find(key: str, name: str, base: type) -> Any:
    """The class of the kind `base` with this name, at the key of a configuration."""
    if ":" in name:
        part = _import(key, name)
    else:
        root = kind_of(base) or base
        classes = classes_by_name(root, KINDS[root], name)
        classes = classes or classes_by_name(root, _plugins(), name)
        if not classes:
            classes = classes_by_name(root, (*KINDS[root], *_plugins()))
            names = [x for x, part in classes.items() if _refusal(part, base) is None]
            raise _unknown_name(key, name, names)
        part = classes[name]
    if (refusal := _refusal(part, base)) is not None:
        raise InputError(f"{key}={short(name)}: {refusal}.")
    return part


def classes_by_name(
    root: type, modules: Iterable[ModuleType], name: str | None = None
) -> dict[str, Any]:
    """The classes of a kind by their names in a configuration: all, or those of one name."""
    return {
        snake_case(label): part
        for module in modules
        for label, part in vars(module).items()
        if name in (None, snake_case(label)) and not label.startswith("Abstract")
        if _refusal(part, root) is None
    }


@ft.cache
def _plugins() -> tuple[ModuleType, ...]:
    return tuple(x.load() for x in entry_points(group="ide_transformer.parts"))


def find_function(key: str, name: str, *, of_array: bool = True) -> Callable[..., Any]:
    """The activation with this name, or the function `package.module:name`."""
    if ":" not in name:
        activations = {
            x.__name__: x
            for x in filter(inspect.isfunction, vars(equation).values())
            if x.__module__ == equation.gelu.__module__
            and len(inspect.signature(x).parameters) == 1
        }
        if name not in activations:
            raise _unknown_name(key, name, activations)
        return activations[name]
    function = _import(key, name)
    if not callable(function) or inspect.isclass(function) or inspect.isbuiltin(function):
        raise InputError(f"{key}={name}: it is a {type(function).__name__}, not a function.")
    if of_array:
        try:
            jax.eval_shape(function, jax.ShapeDtypeStruct((2,), float))
        except Exception as error:
            raise InputError(f"{key}={name} of an array: {error!r}") from None
    return function


def kind_of(annotation: Any) -> type | None:
    """The class in `KINDS` of which a type is a subclass; `None` for any other type."""
    kind = get_origin(annotation) or annotation
    if not inspect.isclass(kind):
        return None
    return next((root for root in KINDS if issubclass(kind, root)), None)


@ft.cache
def parameters_of(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function or a constructor. A class method `build` takes the place of
    the constructor; its `**options` are the constructor's keyword-only parameters."""
    constructor = call
    call = getattr(call, "build", call)
    module = vars(sys.modules[call.__module__])
    parameters = dict(inspect.signature(call, eval_str=True, globals=module).parameters)
    if call is not constructor:
        for name in [name for name, x in parameters.items() if x.kind is x.VAR_KEYWORD]:
            del parameters[name]
            options = inspect.signature(constructor, eval_str=True).parameters.items()
            parameters |= {name: x for name, x in options if x.kind is x.KEYWORD_ONLY}
    fields = getattr(call, "__dataclass_fields__", {})
    types = {}
    for name, parameter in parameters.items():
        kind = parameter.annotation
        converter = fields[name].metadata.get("converter") if name in fields else None
        # The type of a field says more than what its converter accepts, unless the converter is
        # a class, which makes the object from what is written.
        if converter is not None and not inspect.isclass(converter):
            kind = fields[name].type
        # A type variable stands for its bound.
        types[name] = getattr(kind, "__bound__", None) or kind
    changed = {name: x.replace(annotation=types[name]) for name, x in parameters.items()}
    return MappingProxyType(changed)


@ft.cache
def snake_case(name: str) -> str:
    """`LieTrotter` as `lie_trotter`, `RMSNorm` as `rms_norm`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def is_array(annotation: Any) -> bool:
    """Whether a type is an array type of jaxtyping."""
    return inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)


def _refusal(part: Any, base: type) -> str | None:
    """Why a configuration cannot name this object as a `base`; `None` if it can."""
    label = getattr(part, "__name__", repr(part))
    if base is models.Model and part is not base:
        returned = None
        # A type such as `Callable[[int], str]` is callable too.
        if callable(part) and not inspect.isclass(part) and get_origin(part) is None:
            returned = inspect.signature(part, eval_str=True).return_annotation
        if (get_origin(returned) or returned) is models.Model and "key" in parameters_of(part):
            return None
        return f"{label} is not a function of a key that is annotated with -> Model"
    if not inspect.isclass(part) or not issubclass(part, base):
        return f"{label} is not a subclass of {base.__name__}"
    missing = set(getattr(part, "__abstractmethods__", ()))
    missing |= set(getattr(part, "__abstractvars__", ()))
    if missing:
        return f"{label} is abstract; it has to define {', '.join(sorted(missing))}"
    if issubclass(part, equation.AbstractControl) and not hasattr(part, "build"):
        return f"{label} has no class method build(make_block, layers, *, key)"
    # A scheme of diffrax takes the terms of an ordinary equation, or wraps a scheme that does.
    terms = getattr(part, "term_structure", diffrax.AbstractTerm)
    ordinary = terms in (diffrax.AbstractTerm, diffrax.MultiTerm)
    ordinary |= issubclass(part, diffrax.AbstractWrappedSolver)
    if not getattr(part, "configurable", ordinary):
        return f"{label} is not for configurations (its attribute configurable)"
    return None


def _unknown_name(key: str, name: str, names: Iterable[str]) -> InputError:
    return InputError(
        f"{key}={short(name)}: unknown.{did_you_mean(name, names)} Known: "
        f"{', '.join(sorted(names))}; or your own, package.module:Name."
    )


def _import(key: str, name: str) -> Any:
    """The class or function `package.module:name`; never from the folder of a run."""
    module_name, _, attribute = name.partition(":")
    if len(name) > _LONGEST_NAME or not NAME_OF_CODE.fullmatch(name):
        raise InputError(f"{key}={shown(name)}: expected the form package.module:Class.")
    # Checked before any package above it is imported.
    for place in filter(None, sys.path):
        file = Path(place).joinpath(*module_name.split("."))
        run = next((x for x in file.parents if (x / "checkpoints").is_dir()), None)
        if run is not None and (file.is_dir() or file.with_suffix(".py").is_file()):
            raise InputError(
                f"{key}={name}: {module_name} lies in the folder of a run, {run}; move it."
            )
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        is_missing = isinstance(error, ModuleNotFoundError)
        raise InputError(
            f"{key}={name}: importing {module_name} failed with {type(error).__name__}: {error}"
            f"{'. Start the command in its folder, or install its package.' * is_missing}"
        ) from (None if is_missing else error)
    if not hasattr(module, attribute):
        raise InputError(
            f"{key}={name}: {module.__file__} does not define {attribute!r}."
            f"{did_you_mean(attribute, vars(module))}"
        )
    return getattr(module, attribute)


def _array(kinds: tuple[type, ...], tree: Any, key: str) -> jax.Array:
    numbers = _value(float | list, tree, key)
    for entry in jax.tree.leaves(numbers, is_leaf=lambda x: type(x) is not list):
        _value(float, entry, key)
    for dtype in (float, None):
        try:
            # The array has values, also while a model is built from shapes.
            with jax.ensure_compile_time_eval():
                array = jnp.asarray(numbers, dtype and jnp.result_type(dtype))
        except (TypeError, ValueError):
            break
        if isinstance(array, kinds):
            return array
    raise InputError(f"{key}={shown(tree)}: expected numbers as {kinds[0]}.")


def _value(annotation: Any, tree: Any, key: str) -> Any:
    """A plain value of a type. Integers are below 2³¹, seeds 2³², options of data 2⁶³."""
    if is_dataclass(annotation):
        raise InputError(f"{key} cannot be set in a configuration; remove it.")
    most = 2**63 if key.startswith("data.") else 2**32 if key.endswith("seed") else 2**31
    # Options of a class inside are read by its constructor.
    for leaf in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, dict)):
        if type(leaf) is int and abs(leaf) >= most:
            raise InputError(f"{key}={shown(tree)}: expected less than {most}.")
    if annotation is inspect.Parameter.empty:
        return tree
    try:
        value = _convert(annotation, tree)
    except InputError as error:
        raise InputError(f"{key}={shown(tree)}: {error}") from None
    if misfits := describe_misfit(annotation, value):
        expected = " or ".join(dict.fromkeys(misfits))
        raise InputError(f"{key}={shown(tree)}: expected {expected}.")
    return value


def _convert(annotation: Any, tree: Any) -> Any:
    """Converts a value of YAML to a type: lists to tuples, texts to paths, whole numbers to
    floats. A value that fits no type stays unchanged."""
    kind = get_origin(annotation) or annotation
    inner = get_args(annotation)
    if kind is Annotated:
        for part in inner[1:]:
            tree = part.convert(tree) if isinstance(part, Converted) else tree
        return _convert(inner[0], tree)
    if kind in (Union, UnionType):
        values = [_convert(member, tree) for member in inner]
        fitting = (x for x, y in zip(values, inner, strict=True) if not describe_misfit(y, x))
        return next(fitting, tree)
    if kind is Path and isinstance(tree, str):
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
