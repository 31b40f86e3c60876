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
        # JSON, which is YAML but for numbers that are not finite.
        text = json.dumps(value).replace("NaN", ".nan").replace("Infinity", ".inf")
        return self.written.replace("VALUE", text)


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
    found = [Place(key, kinds_of(kind), f"{key}=VALUE") for key, kind in keys().items()]
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
    parameters = parameters_of(kind)
    parts = (n for n, x in parameters.items() if root_of(x.annotation) and x.default is x.empty)
    needed = {*parts}
    for option, parameter in parameters.items():
        if option not in ("key", "make_block", "num_intervals") and needed <= {option}:
            inner = f"{{kind: {name}, options: {{{option}: VALUE}}}}"
            written = f"{key}={around.replace('{}', inner)}"
            yield Place(option, kinds_of(parameter.annotation), written)


def kinds_of(annotation: Any) -> frozenset[type]:
    """The kinds of values that a type takes; none where that is not known."""
    if annotation in (str, bool, int, float, list, dict, NoneType, Path):
        others = {float: {float, int}, Path: {str}}
        return frozenset(others.get(annotation, {annotation}))
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
    str: _TEXTS.map(lambda x: f"{x} is no such") | st.sampled_from(["8", "yes", "a:b"]),
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


# Texts that are no configurations, by what is said of them.
WRONG_TEXTS = {
    "0": "expected sections",
    "model: {width: 8}\n---\nmodel: {}": "more than one document",
    "model:\n  width: 8\nmodel:\n  depth: 2": "line 3, column 1: model is given twice",
    "model: !!python/object/apply:os.system [ls]": "model: tags are not read",
    "model: &m {width: 8}": "model: anchors",
    "model: {width: \x00}": "special characters",
    "model: {width: 010}": "model.width='010'",
    "training: {seed: 4294967297}": "training.seed=4294967297",
    "name: nul": "name='nul'",
    "model: {pretrained: x}\nsolver: {steps_per_interval: 2}": "solver.kind is missing",
}

# Overrides of a tiny run, and what is said of them; … stands for any text.
REFUSED = """
model.width=64.0 | model.width=64.0: Input should be a valid integer; write 64
model.dept=3 | unknown key model.dept. Did you mean depth? Known here: options, kind, pretrained
solver.kind=rk4; solver={kind: heun} | solver would replace
model.width.x=1 | model.width is a value, not a section
version=2 | version=2: this release … reads version 1; train it again
solver.kind=strng | solver.kind=strng: unknown. Did you mean strang? … lie_trotter
solver.kind=heun; solver.sub_solver=euler | solver.sub_solver: heun has no scheme inside it
solver.kind=strang(heun | 'strang(heun' is not a scheme; write … strang(heun)
solver.kind=strang(heun); solver.sub_solver=rk4 | both give the scheme inside; set one of them
solver.kind=diffrax:ItoMilstein | ItoMilstein is not for configurations
solver={rtol: 1e-3, atol: 1e-3, steps_per_interval: 2} | solver.steps_per_interval is for equal
solver={kind: tsit5, rtol: 1e-17, atol: 1e-17} | solver.rtol=1e-17 … below rounding
model.width=5 | model.operators.0: Attention: heads=2 do not divide
model.pretrained=x; model.width=128; model.heads=4; control=tied | drop … model.depth
model.kind=image_classifier | data.name=stub is … TokenLogits; write model.kind=language_model
model.basis=cosine; model.modes=3; model.hidden=5 | model.hidden=5 times model.modes=3
data.name=text | data: text needs path; give data.path
data={name: text, options: {validation: 2.0}} | write data.validation
data={name: text, path: TEXT}; model.operators=[training.mine:Ahead]
    | data.name=text: operator 0, Ahead, sees later tokens
data={name: text, path: TEXT}; model={width: 16, context: 4000} | longer than the
optimizer.momentum=0.95 | kind=adamw does not use optimizer.momentum; … kind=muon
optimizer.kind=schedule_free | optimizer.schedule=cosine: … optimizer.schedule=constant
optimizer.warmup=4 | optimizer.warmup=4 needs more than training.steps=4
optimizer.groups={control.blocks.0.valeu: 2.0} | fits no weight. The closest paths are … .value
training.costs.smoothness=0.1; control=tied | Smoothness: the weights of Tied are the same
training.accumulate=3 | training.accumulate=3 does not divide training.batch_size=4
training.refine={1: 1, 2: 2} | training.refine={1: 1, 2: 2}: the first step must be 0
training.refine={0: 1, 3: 2, 2: 4} | steps [0, 3, 2] must increase
training.refine={0: 2, 0.75: 1} | numbers of intervals [2, 1] must not decrease
training.refine={0: 1, 2: 4} | ends with 4 intervals, but model.depth is 2
training.refine={0: 2, 2: 3}; model.depth=3 | write 1 in the place of 2
training.refine={0: 1, 2: 2}; training.meshes=[2] | training.meshes draws meshes of one model
training.refine={0: 2, 2: 4}; model.depth=4; control={kind: fourier, options: {waves: 1}}
    | training.refine={0: 2, 2: 4}: … each of waves, on num_intervals=2
training.meshes=[{intervals: 2, after: 5}] | give one without after
training.meshes=[{intervals: 2, solver: nesterov}] | meshes.0.solver=nesterov: it has weights
training.meshes=[{width: 9}] | training.meshes.0={width: 9}: … a multiple of 4
training.meshes=[2, {tokens: 900}] | training.meshes.1.tokens=900: … and no others
training.meshes=[2, {horizon: 0.5}]; control=tied
    | training.meshes.1={horizon: 0.5}: … multiple … 1, for example 1
training.finer.consistency=0.1; solver={kind: tsit5, rtol: 1e-3, atol: 1e-3}
    | training.finer: … adaptive steps
model.operators=[nowhere:Pull] | model.operators.0=nowhere:Pull: … named 'nowhere'. Start the
model.operators=[attention, training.mine:Pul]
    | model.operators.1=training.mine:Pul: … mine.py defines no 'Pul'. Did you mean Pull?
model.operators=[ide_transformer:AbstractOperator] | is abstract; … has to define __call__
solver=training.mine:Pull | solver.kind=training.mine:Pull: Pull is not a subclass
model.activation=math:pi | it is a float, not a function
model.operators=[{kind: training.mine:Pull, options: {strengh: 1.0}}]
    | model.operators.0.options.strengh: training.mine:Pull has no such option. Did you mean
    strength? Known here: features, normalization, strength
model.operators=[training.mine:Twice]
    | model.operators.0: training.mine:Twice needs operator; give model.operators.0.options.op
"""

# Each of these took gigabytes, minutes, or the whole process.
EXPLODING = {
    "model: " + "[" * 10_000: "sections inside each other",
    f"solver: {'strang(' * 3_000}euler{')' * 3_000}": "solver",
    "# a comment\n" * 100_000: "characters",
    "model: {width: 1000000000}": "model.width=1000000000",
    "training: {batch_size: 1000000000}": "training.batch_size=1000000000",
    "solver: {steps_per_interval: 1000000000}": "solver.steps_per_interval=1000000000",
    "control: {kind: hypernetwork, options: {terms: 1000000000}}": "control.options.terms",
    "model: {operators: [{kind: attention, options: {window: 10000000000}}]}": "options.window",
}
