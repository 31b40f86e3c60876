"""Configurations that are wrong in one place, made from the schema of the right ones."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import diffrax
import jaxtyping
from hypothesis import strategies as st

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.training.choice import Choice, Section
from ide_transformer.training.names import FACES, find, parameters_of, root_of, snake_case


# Where a configuration names a class of each kind, around its name and options.
PLACES = {
    ide.AbstractOperator: ("model.operators", "[{}]"),
    ide.AbstractConstraint: ("model.normalization", "{}"),
    ide.AbstractControl: ("control", "{}"),
    diffrax.AbstractSolver: ("solver", "{}"),
    ide.AbstractGradient: ("training.gradient", "{}"),
}


class Place(NamedTuple):
    """A key, the kinds of values that it takes, and where a value is written."""

    key: str
    kinds: frozenset[type]
    written: str

    def override(self, value: Any) -> str:
        return self.written.replace("VALUE", as_yaml(value))


def as_yaml(value: Any) -> str:
    """JSON, which is YAML but for numbers that are not finite."""
    text = json.dumps(value)
    return text.replace("NaN", ".nan").replace("Infinity", ".inf")


def keys() -> dict[str, Any]:
    """All keys of a configuration, with their annotations."""

    def inside(kind: type[Section], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, field in kind.model_fields.items():
            yield prefix + name, field.annotation
            section = field.annotation
            if not (inspect.isclass(section) and issubclass(section, Section)):
                continue
            # The parts of a model need a name beside the other keys.
            if not (issubclass(section, Choice) and prefix == "model."):
                yield from inside(section, f"{prefix}{name}.")

    return dict(inside(training.Config, ""))


def places() -> list[Place]:
    """The keys that refuse some kind of value."""
    found = [
        Place(key, kinds_of(annotation), f"{key}=VALUE") for key, annotation in keys().items()
    ]
    for root, (key, around) in PLACES.items():
        for face in FACES[root]:
            for label, kind in vars(face).items():
                try:
                    kind = find("", snake_case(label), root)
                except ide.InputError:
                    continue
                found += options_of(key, around, snake_case(label), kind)
    return [place for place in dict.fromkeys(found) if place.kinds]


def options_of(key: str, around: str, name: str, kind: type) -> Iterator[Place]:
    parameters = parameters_of(getattr(kind, "build", kind))
    needed = {
        n for n, p in parameters.items() if root_of(p.annotation) and p.default is p.empty
    }
    for option, parameter in parameters.items():
        if option in ("key", "make_block", "num_intervals") or needed - {option}:
            continue
        inner = f"{{kind: {name}, options: {{{option}: VALUE}}}}"
        kinds = kinds_of(parameter.annotation)
        yield Place(option, kinds, f"{key}={around.replace('{}', inner)}")


def kinds_of(annotation: Any) -> frozenset[type]:
    """The kinds of values that a type takes; none where that is not known."""
    if annotation in (str, bool, int, float, list, dict, NoneType):
        return frozenset({annotation, int} if annotation is float else {annotation})
    if annotation is Path:
        return frozenset({str})
    origin = get_origin(annotation)
    if origin is Annotated:
        return kinds_of(get_args(annotation)[0])
    if origin is Literal:
        return frozenset(map(type, get_args(annotation)))
    if origin in (tuple, list, dict):
        return frozenset({list if origin is tuple else origin})
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return frozenset({int, float, list})
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return frozenset({dict, str} if issubclass(annotation, Choice) else {dict})
    if root_of(annotation):
        return frozenset({dict, str})
    if origin is not None and get_args(annotation) and origin is not type:
        inner = [kinds_of(x) for x in get_args(annotation)]
        return frozenset().union(*inner) if all(inner) else frozenset()
    return frozenset()


_TEXTS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=8)
_VALUES = {
    str: st.one_of(
        _TEXTS.map(lambda x: f"{x} is no such"), st.sampled_from(["8", "yes", "a:b"])
    ),
    bool: st.booleans(),
    int: st.integers(-(2**70), 2**70),
    float: st.floats(),
    list: st.lists(st.sampled_from([1, "a", None, True, []]), max_size=3),
    dict: st.dictionaries(_TEXTS, st.integers(), min_size=1, max_size=2),
    NoneType: st.none(),
}
# No numbers of a configuration, whatever the key.
_NO_INTEGERS = [2**32, 2**63, 10**30]
_NO_NUMBERS = [1e39, -1e39, 1e-60, float("nan"), float("inf"), -float("inf")]


def wrong_values(place: Place) -> st.SearchStrategy:
    """Values of another kind, and numbers out of every range."""
    kinds = place.kinds
    others = [strategy for kind, strategy in _VALUES.items() if kind not in kinds]
    if kinds <= {int, float, NoneType}:
        others.append(st.sampled_from(_NO_NUMBERS if float in kinds else _NO_INTEGERS))
        if "." in place.key:  # no key of a section takes a number below zero
            others.append(st.integers(max_value=-1) if int in kinds else st.just(-0.5))
    return st.one_of(*others)


def misspelt() -> Iterator[str]:
    """Each key without a letter in its middle, and one more in each section."""
    sections = {"": None}
    for key in keys():
        *above, name = key.split(".")
        sections[".".join(above)] = None
        if len(name) > 4:
            yield ".".join((*above, name[:2] + name[3:]))
    for section in sections:
        yield f"{section}.nonsense".removeprefix(".")


WRONG_TEXTS = {
    "0": "expected sections",
    "false": "expected sections",
    "- a\n- b": "expected sections",
    "a text": "expected sections",
    "a: [": "line 1",
    "model: {width: 8": "line 1",
    "model:\n  width: 8\n depth: 2": "line 3",
    "model:\n\twidth: 8": "line 2",
    "a: b: c": "line 1",
    "model: {width: 8}\n---\nmodel: {}": "more than one document",
    "model: {width: 8, width: 9}": "model.width is given twice",
    "model:\n  width: 8\nmodel:\n  depth: 2": "line 3, column 1: model is given twice",
    "model: !!python/object/apply:os.system [ls]": "model: tags are not read",
    "model: {width: !!int 8}": "model.width: tags are not read",
    "model: {width: !wide 8}": "model.width: tags are not read",
    "model: &m {width: 8}": "model: anchors",
    "model: {width: *w}": "model.width: anchors",
    "model: {<<: {width: 8}}": "unknown key model.<<",
    "1: 2": "unknown key 1",
    "1.5: 2": "a key is a name",
    "? [a]\n: 2": "a key is a name",
    "model: {width: \x00}": "special characters",
    "model: {width: 0x10}": "model.width='0x10'",
    "model: {width: 010}": "model.width='010'",
    "training: {steps: 1:30}": "training.steps='1:30'",
    "model: {bias: yes}": "model.bias='yes'",
    "model: {bias: 'yes'}": "model.bias='yes'",
    "model: {width: '32'}": "model.width='32'",
    "model: {width: 32.0}": "model.width=32.0",
    "model: {width: true}": "model.width=True",
    "training: {seed: 18446744073709551616}": "training.seed=18446744073709551616",
    "training: {seed: 4294967297}": "training.seed=4294967297",
    "version: true": "version=True",
    "version: [1]": "version=[1]",
    "name: nul": "name='nul'",
    "name: ends.": "name='ends.'",
    f"name: {'a' * 300}": "name='aaa",
    "training: {steps: 100}\noptimizer: {warmup: 100}": "optimizer.warmup=100",
    "optimizer: {final_learning_rate: 2e-3}": "optimizer.final_learning_rate=0.002",
    "optimizer: {beta2: 0.99999999}": "optimizer.beta2",
    "solver: {kind: native}": "solver.kind=native",
    "model: {pretrained: x}\nsolver: {kind: native, steps_per_interval: 2}": (
        "drop solver.steps_per_interval"
    ),
    "model: {pretrained: x}\nsolver: {steps_per_interval: 2}": "solver.kind is missing",
    "solver: {rtol: 1e-3}": "solver.atol",
    "solver: {rtol: 1e-3, atol: 1e-3, steps_per_interval: 2}": "solver.steps_per_interval",
    "solver: {kind: tsit5, rtol: 1e-17, atol: 1e-17}": "solver.rtol=1e-17",
    "solver: {kind: tsit5, rtol: 0, atol: 0}": "solver.rtol=0",
    "solver: {kind: strang(heun), sub_solver: rk4}": "solver",
    "solver: {kind: adams_bashforth, options: {steps: '2'}}": "solver.options.steps='2'",
    "solver: {kind: steady_state, options: {tolerance: 1e-17}}": "tolerance=1e-17",
    "model: {pretrained: x, width: 8}": "model.width",
    "data: {name: text, options: {validation: 2.0}}": "write data.validation",
    "data: {name: digits, options: {patch: 0}}": "data.options.patch=0",
    "data: {name: text}": "data.path",
    "model: {activation: 'json:loads'}": "model.activation=json:loads",
    "model: {operators: []}": "model.operators",
    "training: {gradient: {kind: recompute, options: {policy: gelu}}}": "policy=gelu",
    "control: {kind: chebyshev, options: {terms: x}}": "control.options.terms='x'",
    "model: {operators: [{kind: damping, options: {rate: [true]}}]}": "rate=True",
}

# Each of these took gigabytes, minutes, or the whole process.
EXPLODING = {
    "a: &a [x, x]\n"
    + "".join(
        f"{c}: &{c} [{f'*{b}, ' * 9}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)
    ): "anchors",
    "model: " + "[" * 10_000: "sections inside each other",
    "model: {options: " + "{a: " * 3_000 + "1" + "}" * 3_001: "sections inside each other",
    "- " * 10_000: "sections inside each other",
    f"solver: {'strang(' * 3_000}euler{')' * 3_000}": "solver",
    "# a comment\n" * 100_000: "characters",
    "training: {seed: " + "9" * 10_000 + "}": "training.seed",
    "model: {width: 1000000000}": "model.width=1000000000",
    "model: {depth: 10000000}": "model.depth=10000000",
    "model: {hidden: 1000000000}": "model.hidden=1000000000",
    "training: {batch_size: 1000000000}": "training.batch_size=1000000000",
    "model: {context: 1000000000}": "model.context=1000000000",
    "solver: {steps_per_interval: 1000000000}": "solver.steps_per_interval=1000000000",
    "solver: {kind: tsit5, max_steps: 1000000000000}": "solver.max_steps",
    "control: {kind: chebyshev, options: {terms: 1000000000}}": "terms",
    "control: {kind: hypernetwork, options: {terms: 1000000000}}": "control.options.terms",
    "model: {operators: [{kind: feed_forward, options: {hidden: 1000000000}}]}": (
        "model.operators.0.options.hidden"
    ),
    "model: {operators: [{kind: attention, options: {window: 10000000000}}]}": "options.window",
    "training: {steps: 1000000000000}": "training.steps",
}
