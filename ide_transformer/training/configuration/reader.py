"""Builds objects from a configuration, by the signatures of their constructors.

A configuration writes a class as its name in snake case, as `package.module:Class`, or with
arguments as `{kind: name, options: {argument: value}}`. Names are searched in the package, and
in packages whose entry points in the group `ide_transformer.parts` are modules with classes."""

import functools as ft
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
from .config import Converted, Section
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
# Parts inside other parts that draw weights.
_DRAWN = (equation.AbstractOperator, models.AbstractInputs, models.AbstractReadOut)
# The most schemes inside each other.
_DEEPEST = 20
# The most characters of such a name.
_LONGEST_NAME = 500

# Arguments offered to the constructors of a kind, by name.
Given: TypeAlias = Mapping[type, Mapping[str, Any]]


def read(
    annotation: Any,
    tree: Any,
    key: str,
    *,
    given: Given = MappingProxyType({}),
    draws: PRNGKeyArray | None = None,
    beside: Collection[str] = (),
) -> Any:
    """The object of type `annotation` that a tree describes at the `key` of a configuration.

    A parameter of a constructor takes the option of its name, else the argument `given` under
    its name for the kind of the class, else its default. If it has none of these and its type
    is a class in `KINDS`, the class is made with its defaults.

    **Arguments:**

    - `given`: arguments by kind and name, such as the sizes in the section `model`.
    - `draws`: the random key of the weights. Each part that draws weights gets its own.
    - `beside`: options that are written beside the name, not under `options`.

    **Raises:** `InputError` that names the key, its value, and what to write instead.
    """
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    members = get_args(plain) if get_origin(plain) in (Union, UnionType) else (plain,)
    if tree is None and NoneType in members:
        return None
    for member in members:
        kind = get_origin(member) or member
        if _is_section(kind):
            return _section(kind, tree, key)
        inner = get_args(member)
        if kind is tuple and _is_section(inner[0]) and isinstance(tree, list):
            items = tuple(read(inner[0], x, f"{key}.{i}") for i, x in enumerate(tree))
            return _value(annotation, items, key)
        if kind is dict and _is_section(inner[1]) and isinstance(tree, dict):
            sections = {name: read(inner[1], x, f"{key}.{name}") for name, x in tree.items()}
            return _value(annotation, sections, key)
        if kind_of(member) is not None:
            name, written, options = described(tree, key)
            found = find(key + written, name, kind)
            offered = given.get(kind_of(kind) or kind, {})

            def place(option: str) -> str:
                return f"{key}.{option}" if option in beside else f"{key}.options.{option}"

            arguments = _arguments(found, name, options, place, given, offered, draws)
            try:
                return getattr(found, "build", found)(**arguments)
            except (InputError, OSError) as error:
                where = "" if str(error).startswith(f"{key}.") else f"{key}: "
                raise InputError(f"{where}{error}") from None
        if kind is integration.Mesh:
            options = _value(dict[str, Any], tree, key)
            if "solver" in options:
                raise InputError(f"{key}.solver: a mesh has no scheme; set solver.kind.")
            return kind(**_arguments(kind, "a mesh", options, lambda x: f"{key}.{x}"))
        if kind is Callable:
            # Only an activation has annotated arguments.
            name = _value(str, tree, key)
            return find_function(key, name, of_array=bool(get_args(member)))
    arrays = tuple(filter(is_array, members))
    if arrays:
        return _array(arrays, tree, key)
    return _value(annotation, tree, key)


def _section(kind: type[Section], tree: Any, key: str) -> Section:
    """A section of a configuration at a key; at no key, the whole configuration."""
    tree = kind.complete(tree)
    if not isinstance(tree, dict):
        place = f"{key}=" if key else ""
        raise InputError(f"{place}{shown(tree)}: expected keys with values.")
    place = f"{key}." if key else ""
    name = key or "a configuration"
    arguments = _arguments(kind, name, tree, lambda x: f"{place}{x}")
    try:
        return kind(**arguments)
    except InputError as error:
        where = "" if not key or str(error).startswith(place) else f"{key}: "
        raise InputError(f"{where}{error}") from None


def _is_section(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Section)


def _arguments(
    call: Any,
    name: str,
    options: Mapping[str, Any],
    place: Callable[[str], str],
    given: Given = MappingProxyType({}),
    offered: Mapping[str, Any] = MappingProxyType({}),
    draws: PRNGKeyArray | None = None,
) -> dict[str, Any]:
    """The arguments of a constructor: its options, then what is `offered`, then defaults."""
    parameters = parameters_of(call)
    supplied = {"key", "make_block", "layers"} if "make_block" in parameters else {"key"}
    known = sorted(parameters.keys() - supplied)
    for option in options:
        if option not in known:
            known = f"{did_you_mean(option, known)} Known here: {', '.join(known) or 'none'}."
            raise InputError(f"{place(short(option))}: {name} has no such option.{known}")
    asked = [
        x
        for x, p in parameters.items()
        if x in options or (p.default is p.empty and p.kind is not p.VAR_KEYWORD)
    ]
    # A random key for each part that draws weights, and one for the object's own weights.
    drawn = [x for x in asked if kind_of(parameters[x].annotation) in _DRAWN]
    keys: dict[str, PRNGKeyArray] = {}
    if draws is not None:
        *inner, own = jax.random.split(draws, len(drawn) + 1) if drawn else [draws]
        keys = dict(zip(drawn, inner, strict=True))
        offered = {**offered, "key": own}
    arguments = {}
    for x in parameters.keys() & offered.keys():
        # An offered array is taken only if it has the shape of the annotation.
        kind = parameters[x].annotation
        if not is_array(kind) or isinstance(offered[x], kind):
            arguments[x] = offered[x]
    for x in asked:
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
        arguments[x] = read(annotation, tree, place(x), given=given, draws=keys.get(x))
    return arguments


def described(tree: Any, key: str) -> tuple[str, str, dict[str, Any]]:
    """The name of a class, where the name stands below the `key`, and its options. A scheme may
    have its first argument in parentheses: `strang(heun)` or `adams_bashforth(3)`."""
    section = tree if isinstance(tree, dict) else {"kind": tree}
    written = "name" if "name" in section else "kind"
    name = section.get(written)
    options = section.get("options", {})
    unknown = section.keys() - {written, "options"}
    if not isinstance(name, str) or not isinstance(options, dict) or unknown:
        write = "write a name, or {kind: name, options: {argument: value}}"
        raise InputError(f"{key}={shown(tree)}: {write}.")
    written = f".{written}" if isinstance(tree, dict) else ""
    if not {*name} & {*"()"}:
        return name, written, options
    match = re.fullmatch(r"([\w.:]+)\((.+)\)", name.strip())
    if match is None or name.count("(") > _DEEPEST:
        what = f"{key}{written}: {shown(name)} is not a scheme"
        raise InputError(f"{what}; write strang(heun), at most {_DEEPEST} inside each other.")
    name, inside = match.groups()
    first = next(iter(parameters_of(find(key + written, name, diffrax.AbstractSolver))), None)
    if first is None or first in options:
        beside = f" beside options.{first}; drop one of them" if first in options else ""
        raise InputError(f"{key}{written}: {name} takes nothing in parentheses{beside}.")
    return name, written, {first: int(inside) if inside.isdecimal() else inside, **options}


def spelled_scheme(tree: Any) -> str:
    """The name of a scheme in a table, with the scheme inside it, such as `strang(heun)`."""
    name, _, options = described(tree, "solver")
    try:
        parameters = parameters_of(find("solver", name, diffrax.AbstractSolver))
    except InputError:
        return name
    first, parameter = next(iter(parameters.items()), ("", None))
    inside = options.get(first, parameter and parameter.default)
    if isinstance(inside, diffrax.AbstractSolver):
        inside = snake_case(type(inside).__name__)
    if isinstance(inside, str | dict):
        return f"{name}({spelled_scheme(inside)})"
    return f"{name}({inside})" if type(inside) is int else name


def find(key: str, name: str, base: type) -> Any:
    """The class of the kind `base` with this name, at the key of a configuration."""
    if ":" in name:
        found = _imported(key, name)
    else:
        root = kind_of(base) or base
        named = named_classes(root, KINDS[root], name)
        if not named:
            named = named_classes(root, _modules_of_others(), name)
        if not named:
            known = named_classes(root, (*KINDS[root], *_modules_of_others()))
            raise _unknown(key, name, [x for x in known if _refusal(known[x], base) is None])
        found = named[name]
    if (refusal := _refusal(found, base)) is not None:
        raise InputError(f"{key}={short(name)}: {refusal}.")
    return found


def named_classes(
    root: type, modules: Iterable[ModuleType], name: str | None = None
) -> dict[str, Any]:
    """The classes of a kind by the names that a configuration gives them: all, or of a name."""
    return {
        snake_case(label): found
        for module in modules
        for label, found in vars(module).items()
        if name in (None, snake_case(label)) and not label.startswith("Abstract")
        if _refusal(found, root) is None
    }


@ft.cache
def _modules_of_others() -> tuple[ModuleType, ...]:
    return tuple(x.load() for x in entry_points(group="ide_transformer.parts"))


def find_function(key: str, name: str, *, of_array: bool = True) -> Callable[..., Any]:
    """The function with this name, or `package.module:name`; an activation if `of_array`."""
    if ":" not in name:
        home = equation.gelu.__module__ if of_array else None
        functions = filter(inspect.isfunction, vars(equation).values())
        there = [x for x in functions if x.__module__ == home]
        known = {x.__name__: x for x in there if len(inspect.signature(x).parameters) == 1}
        if name not in known:
            raise _unknown(key, name, known)
        return known[name]
    found = _imported(key, name)
    if not callable(found) or inspect.isclass(found) or inspect.isbuiltin(found):
        raise InputError(f"{key}={name}: it is a {type(found).__name__}, not a function.")
    if of_array:
        try:
            jax.eval_shape(found, jax.ShapeDtypeStruct((2,), float))
        except Exception as error:
            raise InputError(f"{key}={name} of an array: {error!r}") from None
    return found


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
            named = inspect.signature(constructor, eval_str=True).parameters.items()
            parameters |= {name: x for name, x in named if x.kind is x.KEYWORD_ONLY}
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


def _refusal(found: Any, base: type) -> str | None:
    """Why a configuration cannot name this object as a `base`; `None` if it can."""
    label = getattr(found, "__name__", repr(found))
    if base is models.Model and found is not base:
        returned = None
        # A type such as `Callable[[int], str]` is callable too.
        if callable(found) and not inspect.isclass(found) and get_origin(found) is None:
            returned = inspect.signature(found, eval_str=True).return_annotation
        if (get_origin(returned) or returned) is models.Model and "key" in parameters_of(found):
            return None
        return f"{label} is not a function of a key that is annotated with -> Model"
    if not inspect.isclass(found) or not issubclass(found, base):
        return f"{label} is not a subclass of {base.__name__}"
    missing = set(getattr(found, "__abstractmethods__", ()))
    missing |= set(getattr(found, "__abstractvars__", ()))
    if missing:
        return f"{label} is abstract; it has to define {', '.join(sorted(missing))}"
    if issubclass(found, equation.AbstractControl) and not hasattr(found, "build"):
        return f"{label} has no class method build(make_block, layers, *, key)"
    # A scheme of diffrax takes the terms of an ordinary equation, or wraps a scheme that does.
    terms = getattr(found, "term_structure", diffrax.AbstractTerm)
    ordinary = terms in (diffrax.AbstractTerm, diffrax.MultiTerm)
    ordinary |= issubclass(found, diffrax.AbstractWrappedSolver)
    if not getattr(found, "configurable", ordinary):
        return f"{label} is not for configurations (its attribute configurable)"
    return None


def _unknown(key: str, name: str, known: Iterable[str]) -> InputError:
    listed = f"Known: {', '.join(sorted(known))}; or your own, package.module:Name"
    return InputError(f"{key}={short(name)}: unknown.{did_you_mean(name, known)} {listed}.")


def _imported(key: str, name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if len(name) > _LONGEST_NAME or not NAME_OF_CODE.fullmatch(name):
        raise InputError(f"{key}={shown(name)}: it is not of the form package.module:Class.")
    # Checked before any package above it is imported.
    for place in filter(None, sys.path):
        file = Path(place).joinpath(*module_name.split("."))
        inside = next((x for x in file.parents if (x / "checkpoints").is_dir()), None)
        if inside is not None and (file.is_dir() or file.with_suffix(".py").is_file()):
            what = f"{module_name} lies in the folder of a run, {inside}"
            raise InputError(f"{key}={name}: {what}; move it.")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError)
        what = f"importing {module_name} failed with {type(error).__name__}: {error}"
        hint = ". Start the command in its folder, or install its package." * absent
        raise InputError(f"{key}={name}: {what}{hint}") from (None if absent else error)
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, vars(module))
        raise InputError(f"{key}={name}: {module.__file__} defines no {attribute!r}.{hint}")
    return getattr(module, attribute)


def _array(kinds: tuple[type, ...], tree: Any, key: str) -> jax.Array:
    numbers = _value(float | list, tree, key)
    for number in jax.tree.leaves(numbers, is_leaf=lambda x: type(x) is not list):
        _value(float, number, key)
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
    """A plain value of a type. Only tasks count in 64 bits, and seeds have 32 bits."""
    if is_dataclass(annotation):
        raise InputError(f"{key}: it cannot be written in a configuration; leave it out.")
    most = 2**63 if key.startswith("data.") else 2**32 if key.endswith("seed") else 2**31
    # Options of a class inside are read by its constructor.
    for leaf in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, dict)):
        if type(leaf) is int and abs(leaf) >= most:
            raise InputError(f"{key}={shown(tree)}: expected less than {most}.")
    if annotation is inspect.Parameter.empty:
        return tree
    try:
        value = _converted(annotation, tree)
    except InputError as error:
        raise InputError(f"{key}={shown(tree)}: {error}") from None
    if misfits := describe_misfit(annotation, value):
        expected = " or ".join(dict.fromkeys(misfits))
        raise InputError(f"{key}={shown(tree)}: expected {expected}.")
    return value


def _converted(annotation: Any, tree: Any) -> Any:
    """A value of YAML as the type has it: lists as tuples, texts as paths, whole numbers as
    floats. What fits no type stays as it is."""
    kind = get_origin(annotation) or annotation
    inner = get_args(annotation)
    if kind is Annotated:
        for part in inner[1:]:
            tree = part.convert(tree) if isinstance(part, Converted) else tree
        return _converted(inner[0], tree)
    if kind in (Union, UnionType):
        values = [_converted(member, tree) for member in inner]
        fitting = (x for x, y in zip(values, inner, strict=True) if not describe_misfit(y, x))
        return next(fitting, tree)
    if kind is Path and isinstance(tree, str):
        return Path(tree)
    if kind is float and type(tree) is int:
        return float(tree)
    if kind is tuple and isinstance(tree, list) and inner:
        kinds = inner[:1] * len(tree) if inner[-1] is ... else inner
        return tuple(map(_converted, kinds, tree)) if len(kinds) == len(tree) else tuple(tree)
    if kind in (list, Sequence) and isinstance(tree, list) and inner:
        return [_converted(inner[0], x) for x in tree]
    if kind in (dict, Mapping) and isinstance(tree, dict) and inner:
        return {name: _converted(inner[1], x) for name, x in tree.items()}
    return tree
