"""Classes and functions by their names in a configuration.

A name is in snake case, or `package.module:Class`. Names are looked up in the package, then in
the modules of entry points in the group `ide_transformer.parts`."""

import functools as ft
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple, get_origin

import diffrax
import jax
import jaxtyping

from ... import dynamics, equation, integration, models, solvers, tasks
from ...errors import ConfigError, did_you_mean, short, shown
from .. import trackers
from ..steps import growth
from .key import Key
from .text import NAME_OF_CODE


class Kind(NamedTuple):
    """A kind of classes that a configuration names.

    - `modules`: the packages that are searched for its names.
    - `offers`: the arguments that a run passes by name; `None` if the data decide them too.
    - `draws`: whether such a part draws weights, also inside other parts.
    """

    modules: tuple[ModuleType, ...]
    offers: frozenset[str] | None = frozenset()
    draws: bool = False


_OPERATOR_OFFERS = (
    *("features", "heads", "key_value_heads", "hidden", "bias", "std", "output_std"),
    *("activation", "causal", "positions", "normalization", "rate"),
)
KINDS: dict[type, Kind] = {
    equation.AbstractOperator: Kind((equation,), frozenset(_OPERATOR_OFFERS), draws=True),
    equation.AbstractConstraint: Kind((equation,), frozenset(("gain", "bias", "eps"))),
    equation.AbstractPositions: Kind((equation,)),
    equation.AbstractBasis: Kind((equation,)),
    equation.AbstractControl: Kind((equation,), frozenset(("make_block", "layers"))),
    diffrax.AbstractSolver: Kind(
        (diffrax, solvers), frozenset(("features", "num_steps", "operators"))
    ),
    integration.AbstractGradient: Kind((integration,)),
    models.Model: Kind((models,), None),
    models.AbstractInputs: Kind((models,), None, draws=True),
    models.AbstractReadOut: Kind((models,), None, draws=True),
    tasks.AbstractTask: Kind((tasks,), frozenset(("context", "patch", "tokenizer"))),
    dynamics.AbstractCost: Kind((dynamics,)),
    trackers.AbstractTracker: Kind((trackers,)),
    growth.AbstractGrowth: Kind((growth,)),
}


def find(key: Key | str, name: str, base: type) -> Any:
    """The class of the kind `base` with this name, at the key of a configuration."""
    if ":" in name:
        part = _import(key, name)
    else:
        root = kind_of(base) or base
        classes = classes_by_name(root, KINDS[root].modules, name)
        classes = classes or classes_by_name(root, plugins(), name)
        if not classes:
            classes = classes_by_name(root, (*KINDS[root].modules, *plugins()))
            names = [x for x, part in classes.items() if _refusal(part, base) is None]
            raise _unknown_name(key, name, names)
        part = classes[name]
    if (refusal := _refusal(part, base)) is not None:
        raise ConfigError(f"{key}={short(name)}: {refusal}.")
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
def plugins() -> tuple[ModuleType, ...]:
    return tuple(x.load() for x in entry_points(group="ide_transformer.parts"))


def find_function(key: Key | str, name: str, *, of_array: bool = True) -> Callable[..., Any]:
    """The activation with this name, or the function `package.module:name`."""
    if ":" not in name:
        functions = activations()
        if name not in functions:
            raise _unknown_name(key, name, functions)
        return functions[name]
    function = _import(key, name)
    if not callable(function) or inspect.isclass(function) or inspect.isbuiltin(function):
        raise ConfigError(f"{key}={name}: it is a {type(function).__name__}, not a function.")
    if of_array:
        try:
            jax.eval_shape(function, jax.ShapeDtypeStruct((2,), float))
        except Exception as error:
            raise ConfigError(f"{key}={name} of an array: {error!r}") from None
    return function


def activations() -> dict[str, Callable[..., Any]]:
    """The activations of the package, by name."""
    return {
        x.__name__: x
        for x in filter(inspect.isfunction, vars(equation).values())
        if x.__module__ == equation.gelu.__module__
        and len(inspect.signature(x).parameters) == 1
    }


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


def _unknown_name(key: Key | str, name: str, names: Iterable[str]) -> ConfigError:
    return ConfigError(
        f"{key}={short(name)}: unknown.{did_you_mean(name, names)} Known: "
        f"{', '.join(sorted(names))}; or your own, package.module:Name."
    )


def _import(key: Key | str, name: str) -> Any:
    """The class or function `package.module:name`; never from the folder of a run."""
    module_name, _, attribute = name.partition(":")
    if not NAME_OF_CODE.fullmatch(name):
        raise ConfigError(f"{key}={shown(name)}: expected the form package.module:Class.")
    # Checked before any package above it is imported.
    for place in filter(None, sys.path):
        file = Path(place).joinpath(*module_name.split("."))
        run = next((x for x in file.parents if (x / "checkpoints").is_dir()), None)
        if run is not None and (file.is_dir() or file.with_suffix(".py").is_file()):
            raise ConfigError(
                f"{key}={name}: {module_name} lies in the folder of a run, {run}; move it."
            )
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        problem = f"importing {module_name} failed with {type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError):
            advice = "Start the command in its folder, or install its package."
            raise ConfigError(f"{key}={name}: {problem}. {advice}") from None
        raise ConfigError(f"{key}={name}: {problem}") from error
    if not hasattr(module, attribute):
        raise ConfigError(
            f"{key}={name}: {module.__file__} does not define {attribute!r}."
            f"{did_you_mean(attribute, vars(module))}"
        )
    return getattr(module, attribute)
