"""Writes the tables on pages that come from code. A page names the function of each table."""

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import ide_transformer as ide
from ide_transformer.arguments import Bound
from ide_transformer.compare.convergence import FEATURES, Case, find_scheme, problem, schemes
from ide_transformer.contrib import public as contrib
from ide_transformer.pretrained import families
from ide_transformer.reporting import markdown_table as table
from ide_transformer.solvers import count_evaluations, unroll_stages
from ide_transformer.training import load_config
from ide_transformer.training.configuration.config import Config
from ide_transformer.training.configuration.names import KINDS, classes_by_name
from ide_transformer.training.configuration.reader import Spec
from ide_transformer.training.configuration.schema import describe
from ide_transformer.training.configuration.section import Section
from ide_transformer.training.configuration.training import CostConfig


ROOT = Path(__file__).resolve().parents[2]
PLACE = re.compile(r"(<!-- table: (\w+) -->\n\n)(.*?)(\n\n<!-- end -->)", flags=re.S)
_SIGNS = {
    "greater than": ">",
    "greater than or equal to": "≥",
    "less than": "<",
    "less than or equal to": "≤",
}
_UNTOLD = ("greater than 0", f"less than {2**31}")


def _join_names(names: Iterable[str]) -> str:
    return ", ".join(f"`{x}`" for x in names)


def keys_tables(kind: type[Section] = Config, key: str = "") -> str:
    """The keys of a section and of the sections inside it, as their docstrings explain them."""
    about, explanations = describe(kind)
    required = {"weight": 1.0, "kind": "transport"} if kind is CostConfig else {}
    defaults = kind(**required)
    rows, below = [], []
    fields = dataclasses.fields(kind)
    for field in sorted(fields, key=lambda field: field.name == "options"):
        name = field.name
        inside = _sections_in(field.type)
        if inside and "." not in key:
            below.append(keys_tables(inside[0], f"{key}.{name}".lstrip(".")))
        if inside and not key:
            continue
        assert name in explanations, f"{kind.__name__}: describe {name} in its docstring"
        words = _words(field.type)
        default = defaults.as_tree()[name]
        if default is not None and words != "section":
            is_required = field.default is dataclasses.MISSING is field.default_factory
            text = "required" if is_required else json.dumps(default).replace('"', "")
            words += f" (`{text}`)"
        full_key = f"{key}.{name}" if key and "." not in key else name
        rows.append((f"`{full_key}`", words, explanations[name]))
    about = re.sub(r"^`\w+`: (.)", lambda x: x[1].upper(), about)
    heading = f"##{'#' * key.count('.')} {key}\n\n{about}" if key else "## The run"
    keys = table(("key", "value (default)", "explanation"), rows)
    return "\n\n".join([heading, keys, *below])


def _sections_in(annotation: Any) -> list[type[Section]]:
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return [annotation]
    return [x for inner in get_args(annotation) for x in _sections_in(inner)]


def _words(annotation: Any) -> str:
    """The values of a type in words."""
    kind = get_origin(annotation) or annotation
    inner = get_args(annotation)
    if kind is Spec:
        return "name"
    if kind in (Union, UnionType):
        return " or ".join(_words(x) for x in inner if x is not NoneType)
    if kind is Annotated:
        words = _words(inner[0])
        limits = [x.text for x in inner[1:] if isinstance(x, Bound)]
        if "greater than 0" in limits:
            words = f"positive {words}"
        for phrase, sign in _SIGNS.items():
            for limit in limits:
                # That an integer has 31 bits goes without saying.
                if re.fullmatch(rf"{phrase} [\d.]+", limit) and limit not in _UNTOLD:
                    words += f", {sign}{limit.split()[-1]}"
        return words
    if kind is Literal:
        return _join_names(inner)
    if kind is tuple:
        return f"list of {_words(inner[0])}s"
    if _sections_in(kind):
        return "section"
    names = {str: "text", bool: "boolean", int: "integer", float: "number"}
    names |= {dict: "mapping", ide.Mesh: "mapping"}
    return names.get(kind, "path")


def names_table() -> str:
    rows = []
    for root, kind in KINDS.items():
        names = sorted(classes_by_name(root, (*kind.modules, contrib)))
        rows.append((f"`{root.__name__}`", _join_names(names)))
    return table(("kind", "names"), rows)


def families_table() -> str:
    rows: dict[tuple[str, ...], list[str]] = {}
    for kind, family in families().items():
        model = ide.load_pretrained(ROOT / "tests/golden" / kind.replace("glassllm", "llama"))
        sets = ide.equation.parts(model.constraint(0.0), ide.AbstractConstraint)
        constraint = type(next(iter(sets))).__name__
        scheme = str(model.solver).replace("sub_solver=", "").replace("solver=", "")
        build = getattr(family.build, "func", family.build)
        about = inspect.getdoc(sys.modules[build.__module__]) or ""
        about = re.split(r";|\.(?=\s)", about)[0].rstrip(".")
        rows.setdefault((f"`{constraint}`", f"`{scheme}`", about), []).append(f"`{kind}`")
    headings = ("`model_type`", "constraint", "native scheme", "checkpoints")
    return table(headings, [(", ".join(kinds), *row) for row, kinds in rows.items()])


def orders_table() -> str:
    """The orders of schemes in theory, and the evaluations of a step and of the first step."""
    rows = []
    for name in schemes():
        _, entry = find_scheme(name)
        orders = []
        for constraint in ("free", "sphere"):
            solver = entry.scheme(constraint)
            equation, _ = problem(Case(entry.block, "piecewise_constant", constraint))
            orders.append(str(solver.order(equation.terms) or 0) if solver else "–")
        solver = entry.free or entry.sphere
        assert solver is not None
        equation, _ = problem(Case(entry.block, "piecewise_constant", "free"))
        cost = count_evaluations(unroll_stages(solver), equation.control(0.0), FEATURES)
        evaluations = f"{cost.following:.3g}" if cost else "as many as it needs"
        if cost and cost.first != cost.following:
            evaluations += f", the first {cost.first:.3g}"
        kind = type(solver.solver if isinstance(solver, ide.Projected) else solver)
        spelled = f"`{name}`"
        for face in (ide.solvers, ide):
            if getattr(face, kind.__name__, None) is kind:
                spelled = f"[`{name}`](api/solvers.md#{face.__name__}.{kind.__name__})"
        rows.append((spelled, ", ".join(orders), evaluations))
    return table(("scheme", "order: free, sphere", "evaluations a step"), rows)


def architectures_table() -> str:
    rows = []
    for path in sorted((ROOT / "configs" / "schemes").glob("*.yaml")):
        config = load_config(path)
        comment = path.read_text(encoding="utf-8").split("\n#\n")[0].replace("\n# ", " ")
        architecture = comment.removeprefix("# ").partition(":")[0]
        operators = [operator.name for operator in config.model.operators]
        constraint = config.model.constraint.name
        solver = config.solver.label
        solver += ", adaptive" if config.solver.rtol else ""
        row = (path.stem, ", ".join(operators), f"{constraint}, {config.control.kind}", solver)
        rows.append((architecture, *(f"`{x}`" for x in row)))
    headings = "architecture", "configs/schemes/", "operators", "constraint, control", "solver"
    return table(headings, rows)


_WRITERS = (keys_tables, names_table, families_table, orders_table, architectures_table)
TABLES: dict[str, Callable[[], str]] = {x.__name__: x for x in _WRITERS}

if __name__ == "__main__":
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        renewed = PLACE.sub(lambda x: x[1] + TABLES[x[2]]() + x[4], text)
        page.write_text(renewed, encoding="utf-8")
