"""Names in configurations: the snake case of a class, or `package.module:Class`.

A new class is found by its name; nothing is registered."""

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

import diffrax
import jax
import jaxtyping

from .. import dynamics, equation, integration, models, solvers, tasks
from ..errors import InputError, printable
from . import trackers


# It begins where no name goes on, so that a text is read once.
_NAME_OF_CODE = re.compile(r"(?<![\w.])[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")
# Characters of such a name.
_LONGEST_NAME = 500

# Keys of files and folders, in whose names a colon is one of the system.
_PATHS = ("data", "path"), ("model", "pretrained"), ("model", "run")

# The kinds of classes that a configuration names, and the packages in which names are found.
FACES: dict[type, tuple[ModuleType, ...]] = {
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
}


def find(key: str, name: str, base: type) -> Any:
    """The class of the kind `base` that is called `name` at the key of a configuration."""
    if ":" in name:
        found, known = _imported(key, name), ()
    else:
        root = root_of(base) or base
        named = {
            snake_case(label): found
            for face in FACES[root]
            for label, found in vars(face).items()
            if not label.startswith("Abstract") and _refusal(found, root) is None
        }
        known = sorted(label for label, x in named.items() if _refusal(x, base) is None)
        if (found := named.get(name)) is None:
            raise _unknown(key, name, known, "package.module:Class for a class")
    if (refusal := _refusal(found, base)) is not None:
        others = f" Known: {', '.join(known)}." if known else ""
        raise InputError(f"{key}={short(name)}: {refusal}.{others}")
    return found


def find_function(key: str, name: str, *, of_array: bool = True) -> Callable[..., Any]:
    """The activation that is called `name`, or the function `package.module:function`, which
    is tried if it is one `of_array`."""
    if ":" not in name:
        home = equation.gelu.__module__ if of_array else None
        functions = filter(inspect.isfunction, vars(equation).values())
        there = [x for x in functions if x.__module__ == home]
        known = {x.__name__: x for x in there if len(inspect.signature(x).parameters) == 1}
        if name not in known:
            raise _unknown(key, name, sorted(known), "package.module:function for a function")
        return known[name]
    found = _imported(key, name)
    if not callable(found) or inspect.isclass(found) or inspect.isbuiltin(found):
        kind = type(found).__name__
        raise InputError(f"{key}={name}: it is a {kind}, not a function of arrays.")
    if of_array:
        try:
            jax.eval_shape(found, jax.ShapeDtypeStruct((2,), float))
        except Exception as error:
            raise InputError(
                f"{key}={name}: of an array it is {type(error).__name__}: {error}"
            ) from None
    return found


def _unknown(key: str, name: str, known: Iterable[str], write: str) -> InputError:
    return InputError(
        f"{key}={short(name)}: unknown.{did_you_mean(name, known)} Known: {', '.join(known)}. "
        f"Write {write} of your own."
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is closest; empty where none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""


def shown(value: Any) -> str:
    """A value in an error, at most 80 characters of it."""
    return short(repr(value))


def short(name: str) -> str:
    """A name from a file in an error: on one line, at most 80 characters of it."""
    text = printable(name[:81], kept="")
    return text if len(text) <= 80 else f"{text[:76]} …"


def root_of(annotation: Any) -> type | None:
    """The class of `FACES` that a type belongs to; `None` for any other type."""
    kind = get_origin(annotation) or annotation
    if not inspect.isclass(kind):
        return None
    return next((root for root in FACES if issubclass(kind, root)), None)


def parameters_of(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function, a constructor, or its class method `build`, whose
    `**options` are the parameters of the constructor that are given by name only."""
    constructor, call = call, getattr(call, "build", call)
    module = vars(sys.modules[call.__module__])
    parameters = dict(inspect.signature(call, eval_str=True, globals=module).parameters)
    if call is not constructor:
        for name in [name for name, x in parameters.items() if x.kind is x.VAR_KEYWORD]:
            del parameters[name]
            named = inspect.signature(constructor, eval_str=True).parameters.items()
            parameters |= {name: x for name, x in named if x.kind is x.KEYWORD_ONLY}
    # Where a function converts a field, its own type says more than what the function accepts.
    fields = getattr(call, "__dataclass_fields__", {}).items()
    types = {name: parameter.annotation for name, parameter in parameters.items()}
    types |= {n: x.type for n, x in fields if x.metadata.get("converter", x.type) is not x.type}
    # A type that differs from model to model is any of its kind.
    types = {name: getattr(x, "__bound__", None) or x for name, x in types.items()}
    return {name: x.replace(annotation=types[name]) for name, x in parameters.items()}


def snake_case(name: str) -> str:
    """`LieTrotter` as `lie_trotter`, `RMSNorm` as `rms_norm`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _refusal(found: Any, base: type) -> str | None:
    """Why a configuration cannot name this as a `base`."""
    label = getattr(found, "__name__", repr(found))
    if base is models.Model and found is not base:
        if inspect.isclass(found) or not callable(found):
            return (
                f"{label} is not a function that builds a Model; write one, or model.kind=model"
            )
        returned = inspect.signature(found, eval_str=True).return_annotation
        if (get_origin(returned) or returned) is not models.Model:
            return f"{label} is not a function that builds a Model; annotate it with -> Model"
        if "key" not in parameters_of(found):
            return f"{label} draws no weights; it takes no key"
        return None
    if not inspect.isclass(found) or not issubclass(found, base):
        return f"{label} is not a subclass of {base.__name__}"
    missing = set(getattr(found, "__abstractmethods__", ()))
    missing |= set(getattr(found, "__abstractvars__", ()))
    if missing:
        return f"{label} is abstract; it has to define {', '.join(sorted(missing))}"
    if issubclass(found, equation.AbstractControl) and not hasattr(found, "build"):
        call = "build(make_block, num_intervals, *, key)"
        return f"{label} has no class method {call}, which draws its weights"
    # A scheme of diffrax takes the terms of an ordinary equation, or those of the one inside.
    terms = getattr(found, "term_structure", diffrax.AbstractTerm)
    ordinary = terms in (diffrax.AbstractTerm, diffrax.MultiTerm)
    ordinary |= issubclass(found, diffrax.AbstractWrappedSolver)
    if not getattr(found, "configurable", ordinary):
        return f"{label} is not for configurations (its attribute configurable)"
    return None


def is_array(annotation: Any) -> bool:
    """Whether a type is that of an array with a shape."""
    return inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)


def names_of_code(tree: Any) -> dict[str, list[str]]:
    """The names `package.module:Class` in a tree of sections, by the keys where they stand: in
    a value, or in the key itself."""
    found: dict[str, list[str]] = {}
    for path, text in _texts(tree):
        if path not in _PATHS and (names := _NAME_OF_CODE.findall(text)):
            found.setdefault(".".join(path), []).extend(names)
    return found


def _texts(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The texts in a tree of sections, its keys among them, with their places."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            inside = *path, str(key)
            yield inside, str(key)
            yield from _texts(value, inside)


def _imported(key: str, name: str) -> Any:
    """The object that `package.module:Class` names."""
    module_name, _, attribute = name.partition(":")
    if len(name) > _LONGEST_NAME or not _NAME_OF_CODE.fullmatch(name):
        raise InputError(f"{key}={shown(name)}: it is not of the form package.module:Class.")
    _check_place(key, name, module_name)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError)
        hint = ". Start the script in the folder of its file, or install its package."
        raise InputError(
            f"{key}={name}: importing {module_name} failed with {type(error).__name__}: {error}"
            f"{hint if absent else ''}"
        ) from (None if absent else error)
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, vars(module))
        raise InputError(f"{key}={name}: {module.__file__} defines no {attribute!r}.{hint}")
    return getattr(module, attribute)


def _check_place(key: str, name: str, module_name: str) -> None:
    """Refuses a module inside the folder of a run, before any package above it is imported."""
    parents = module_name.split(".")
    for place in filter(None, sys.path):
        file = Path(place).joinpath(*parents)
        inside = next((x for x in file.parents if (x / "checkpoints").is_dir()), None)
        if inside is not None and (file.is_dir() or file.with_suffix(".py").is_file()):
            raise InputError(
                f"{key}={name}: {module_name} lies in the folder of a run, {inside}, from "
                "which no code is imported. Move the module elsewhere, if it is yours."
            )
