"""The tables of the pages: keys of a configuration, from the comments above its fields, and the
names that it knows; families of checkpoints; schemes, and published architectures."""

import inspect
import re
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import diffrax
from pydantic.fields import FieldInfo

from ide_transformer import AbstractConstraint, InputError, load_pretrained
from ide_transformer.compare.convergence import (
    FEATURES,
    Case,
    Entry,
    find_scheme,
    problem,
    schemes,
)
from ide_transformer.equation import parts
from ide_transformer.models import Model
from ide_transformer.pretrained import families
from ide_transformer.pretrained.family import Family
from ide_transformer.reporting import markdown_table as table
from ide_transformer.solvers import Projected, count_evaluations, unrolled
from ide_transformer.training import Config, Section, load_config
from ide_transformer.training.configuration.config import (
    ClassSection,
    CostConfig,
    FinerConfig,
    PhaseConfig,
    StageConfig,
)
from ide_transformer.training.configuration.reader import (
    KINDS,
    described,
    find,
    snake_case,
    spelled_scheme,
)
from ide_transformer.training.configuration.section import Description, Moment

from .names import public_names


_NAMES = {bool: "boolean", int: "integer", float: "number", str: "text", Path: "path"}
_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
# The sections inside sections, by their keys.
_INSIDE: dict[str, type[Section]] = {
    "model.stages": StageConfig,
    "training.schedule": PhaseConfig,
    "training.costs": CostConfig,
    "training.finer": FinerConfig,
}
# A family without an example of its own, and the one of which it is a case.
_EXAMPLE_OF = {"glassllm": "llama"}


def code(text: object) -> str:
    """A name or value as code."""
    return f"`{text}`"


def keys_tables() -> str:
    """A table for each section of a configuration, for each section inside one, and one for the
    keys of none."""
    plain, sections = [], []
    for key, field in Config.model_fields.items():
        kind = field.annotation
        if inspect.isclass(kind) and issubclass(kind, Section):
            sections.append(_section(f"## {key}", kind, f"{key}."))
            inside = {name: x for name, x in _INSIDE.items() if name.startswith(f"{key}.")}
            sections += [_section(f"### {name}", x, "") for name, x in inside.items()]
        else:
            plain.append(key)
    return "\n\n".join([f"## The run\n\n{_keys(Config, '', plain)}", *sections])


def _section(heading: str, kind: type[Section], prefix: str) -> str:
    """The heading of a section, what it is, and the table of its keys."""
    about = re.sub(r"^`\w+`: ", "", (inspect.getdoc(kind) or "").replace("\n", " "))
    return f"{heading}\n\n{about[0].upper()}{about[1:]}\n\n{_keys(kind, prefix)}"


def names_table() -> str:
    """The names that a configuration knows, by the class that they stand for."""
    rows = [(code(base.__name__), ", ".join(map(code, names_of(base)))) for base in KINDS]
    return table(("kind", "names"), rows)


def names_of(base: type) -> list[str]:
    """The names of the classes of that kind that a configuration can choose."""

    def known(name):
        try:
            return bool(find("", name, base))
        except InputError:
            return False

    return sorted(filter(known, {snake_case(x) for face in KINDS[base] for x in vars(face)}))


def _keys(kind: type[Section], prefix: str, chosen: list[str] | None = None) -> str:
    """The table of the keys of a section, or of some of them."""
    sections = [x for x in reversed(kind.__mro__) if issubclass(x, Section)]
    comments = {key: text for x in sections for key, text in _comments(x).items()}
    names = sorted(chosen or kind.model_fields, key="options".__eq__)
    without = [prefix + name for name in names if not comments.get(name)]
    if without:
        raise InputError(f"{kind.__name__}: write a comment above {', '.join(without)}")
    rows = [
        (code(prefix + name), _value(kind.model_fields[name]), comments[name]) for name in names
    ]
    return table(("key", "value (default)", "explanation"), rows)


def _comments(kind: type) -> dict[str, str]:
    """The comment above each field of a section."""
    found = re.findall(r"((?:^    # .*\n)+)    (\w+):", inspect.getsource(kind), flags=re.M)
    return {
        name: " ".join(re.findall(r"^    # (.*)", text, flags=re.M)) for text, name in found
    }


def _value(field: FieldInfo) -> str:
    """What a key takes, and in brackets its default, unless that is null."""
    words = _with_limits(_words(field.annotation), field.metadata)
    default = "required" if field.is_required() else _default(field)
    return f"{words} ({default})" if default else words


def _with_limits(words: str, metadata: Iterable[Any]) -> str:
    limits = [
        f"{sign}{getattr(limit, name):g}"
        for limit in metadata
        for name, sign in _SIGNS.items()
        if hasattr(limit, name)
    ]
    if limits[:1] == [">0"]:
        words, limits = f"positive {words}", limits[1:]
    return ", ".join([words, *limits])


def _words(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        members = {x for x in arguments if x is not type(None)}
        if members == {*get_args(get_args(Description)[0])}:
            return "name"
        if members == {*get_args(get_args(Moment)[0])}:
            return "step, or part of the steps"
        return " or ".join(_words(x) for x in arguments if x is not type(None))
    if origin is Annotated:
        metadata = [x for given in arguments[1:] for x in getattr(given, "metadata", [given])]
        return _with_limits(_words(arguments[0]), metadata)
    if origin is Literal:
        return ", ".join(map(code, arguments))
    if origin is tuple:
        return f"list of {_words(arguments[0])}s"
    if annotation in _NAMES:
        return _NAMES[annotation]
    return "name" if issubclass(origin or annotation, ClassSection) else "mapping"


def _default(field: FieldInfo) -> str:
    match field.default:
        case None:
            return ""
        case bool(value):
            return code(str(value).lower())
        case Section():
            return ""
        case tuple(names):
            return code(f"[{', '.join(names)}]")
        case value:
            return code(value)


def families_table(root: Path) -> str:
    """`model_type`, the constraint, the native scheme, and the architecture."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for kind, family in families().items():
        model = load_pretrained(root / "tests" / "golden" / _EXAMPLE_OF.get(kind, kind))
        sets = parts(model.constraint(0.0), AbstractConstraint)
        constraint = code(type(next(iter(sets))).__name__)
        rows.setdefault((constraint, _scheme(model), _about(family)), []).append(code(kind))
    headings = ("`model_type`", "constraint", "native scheme", "checkpoints")
    return table(headings, [(", ".join(kinds), *row) for row, kinds in rows.items()])


def _about(family: Family) -> str:
    """The first sentence of the file of a family."""
    build = getattr(family.build, "func", family.build)
    text = inspect.getdoc(sys.modules[build.__module__]) or ""
    return re.split(r";|\.(?=\s)", text)[0].rstrip(".")


def _scheme(model: Model) -> str:
    return code(str(model.solver).replace("sub_solver=", "").replace("solver=", ""))


def orders_table() -> str:
    """For each scheme, with a link to its class: its order by theory on a free state and on the
    sphere, and the evaluations of a step."""
    headings = ("scheme", "order: free, sphere", "evaluations a step")
    rows = []
    for name in schemes():
        _, entry = find_scheme(name)
        orders = f"{_order(entry, 'free')}, {_order(entry, 'sphere')}"
        rows.append((_linked(name, entry), orders, _cost(entry)))
    return table(headings, rows)


def architectures_table(root: Path) -> str:
    """For each configuration in configs/schemes/: the architecture, and how it is solved."""
    rows = []
    for path in sorted((root / "configs" / "schemes").glob("*.yaml")):
        config = load_config(path)
        comment = path.read_text(encoding="utf-8").split("\n#\n")[0].replace("\n# ", " ")
        architecture = comment.removeprefix("# ").partition(":")[0]
        model = config.model
        operators = ", ".join(described(tree, "operators")[0] for tree in model.operators)
        solver = spelled_scheme(config.solver.description)
        if config.solver.rtol:
            solver += ", adaptive"
        constraint, _, _ = described(model.constraint, "constraint")
        chosen = f"{constraint}, {config.control.kind}"
        rows.append((architecture, *map(code, (path.stem, operators, chosen, solver))))
    headings = "architecture", "configs/schemes/", "operators", "constraint, control", "solver"
    return table(headings, rows)


def other_names() -> str:
    """The schemes that a configuration can name and the convergence study does not measure."""
    measured = {re.split(r"\W", name)[0] for name in schemes()}
    others = [name for name in names_of(diffrax.AbstractSolver) if name not in measured]
    return ", ".join(map(code, others))


def _linked(name: str, entry: Entry) -> str:
    """The name of a scheme, with a link to its class where it is one of the package."""
    solver = entry.free or entry.sphere
    kind = type(solver.solver if isinstance(solver, Projected) else solver)
    public = public_names().get(id(kind))
    return f"[`{name}`](api/solvers.md#{public[0]})" if public else code(name)


def _order(entry: Entry, constraint: str) -> str:
    solver = entry.scheme(constraint)
    if solver is None:
        return "–"
    equation, _ = problem(Case(entry.block, "piecewise_constant", constraint))
    return str(solver.order(equation.terms) or 0)


def _cost(entry: Entry) -> str:
    """The evaluations of a step; those of the first after a jump where it makes others."""
    solver = entry.free or entry.sphere
    assert solver is not None
    equation, _ = problem(Case(entry.block, "piecewise_constant", "free"))
    cost = count_evaluations(unrolled(solver), equation.control(0.0), FEATURES)
    if cost is None:
        return "as many as it needs"
    if cost.first == cost.following:
        return f"{cost.following:.3g}"
    return f"{cost.following:.3g}, the first {cost.first:.3g}"
