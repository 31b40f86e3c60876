"""The tables of schemes, read from the registry of the convergence study, from the
configurations of published architectures, and from the names that a configuration knows."""

import re
from pathlib import Path

import diffrax

import ide_transformer
from ide_transformer.reporting import markdown_table as table
from ide_transformer.solvers import Projected, count_evaluations, unrolled
from ide_transformer.studies.convergence import FEATURES, Case, find_scheme, problem, schemes
from ide_transformer.training import load_config

from .configuration import code, names_of


def orders_table() -> str:
    """For each scheme: its class, its order by theory on a free state and on the sphere, and
    the evaluations of a step."""
    headings = ("scheme", "class", "order, free", "order, sphere", "evaluations a step")
    rows = [
        (code(name), _classes(name), _order(name, "free"), _order(name, "sphere"), _cost(name))
        for name in schemes()
    ]
    return table(headings, rows)


def architectures_table(root: Path) -> str:
    """For each configuration in configs/schemes/: the architecture, and how it is solved."""
    rows = []
    for path in sorted((root / "configs" / "schemes").glob("*.yaml")):
        config = load_config(path)
        comment = path.read_text(encoding="utf-8").split("\n#\n")[0].replace("\n# ", " ")
        architecture = comment.removeprefix("# ").partition(":")[0]
        operators = ", ".join(part.kind for part in config.model.operators)
        solver = f"{config.solver}, adaptive" if config.solver.rtol else str(config.solver)
        chosen = (operators, config.model.constraint.kind, config.control.kind, solver)
        rows.append((architecture, code(path.stem), *map(code, chosen)))
    headings = (
        "architecture",
        "configs/schemes/",
        "operators",
        "constraint",
        "control",
        "solver",
    )
    return table(headings, rows)


def other_names() -> str:
    """The schemes that a configuration can name and the convergence study does not measure."""
    measured = {re.split(r"\W", name)[0] for name in schemes()}
    others = [name for name in names_of(diffrax.AbstractSolver) if name not in measured]
    return ", ".join(map(code, others))


def _classes(name: str) -> str:
    """The class of a scheme, with a link to its page where it is one of the package."""
    _, entry = find_scheme(name)
    solver = entry.free or entry.sphere
    label = type(solver.solver if isinstance(solver, Projected) else solver).__name__
    if hasattr(ide_transformer, label):
        return f"[`{label}`](api/solvers.md#ide_transformer.{label})"
    return code(f"diffrax.{label}")


def _order(name: str, constraint: str) -> str:
    _, entry = find_scheme(name)
    solver = entry.scheme(constraint)
    if solver is None:
        return "–"
    equation, _ = problem(Case(entry.block, "piecewise_constant", constraint))
    return str(solver.order(equation.terms) or 0)


def _cost(name: str) -> str:
    """The evaluations of a step; those of the first after a jump where it makes others."""
    _, entry = find_scheme(name)
    solver = entry.free or entry.sphere
    assert solver is not None
    equation, _ = problem(Case(entry.block, "piecewise_constant", "free"))
    cost = count_evaluations(unrolled(solver), equation.control(0.0), FEATURES)
    if cost is None:
        return "as many as it needs"
    if cost.first == cost.following:
        return f"{cost.following:.3g}"
    return f"{cost.following:.3g}, the first {cost.first:.3g}"
