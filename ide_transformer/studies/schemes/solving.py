"""Schemes compared by solving: one set of trained weights, many schemes and step counts."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from rich.console import Console

from ...errors import InputError
from ...models import AbstractModel
from ...reporting import measure, plot_curves
from ...reporting.report import Report, write_report
from ...tasks import Batch
from ...training import build_discretization as build_discretization, build_task, load_run
from ...training.config import SolverConfig
from .config import SolvingComparison


class _Problem(NamedTuple):
    model: AbstractModel
    batch: Batch
    exact: Array


def compare_solving(config: SolvingComparison, runs: Path) -> Report:
    """Solves the weights of a trained run with each scheme and writes the report into
    `runs/<name>/`. What was measured before is not measured again.

    **Raises:** `InputError` for input that cannot be used, before anything is measured.
    """
    folder = runs / config.name
    console = Console(highlight=False, soft_wrap=True)
    model, run = load_run(config.run)
    run_config = run.load_config()
    constrained = run_config.model.constraint.kind != "free"
    choices = [
        (name, setting)
        for name, choice in config.schemes.items()
        for setting in _settings(name, choice.solver, choice.steps, choice.tolerances)
    ]

    def with_scheme(setting: SolverConfig) -> AbstractModel:
        scheme = build_discretization(
            setting, width=run_config.model.width, constrained=constrained
        )
        return eqx.tree_at(lambda m: m.discretization, model, scheme)

    models = [with_scheme(setting) for _, setting in choices]
    task = build_task(run_config)
    batch = next(task.held_out(config.samples))
    reference = with_scheme(config.reference)
    exact = _state(reference, batch.inputs)
    half = config.reference.model_copy(
        update={"steps_per_interval": max(1, config.reference.steps_per_interval // 2)}
    )
    doubt = _relative(_state(with_scheme(half), batch.inputs), exact)
    console.print(f"reference: error below {doubt:.1e}, by half its steps")
    problem = _Problem(model, batch, exact)
    rows = []
    for number, ((name, setting), solved) in enumerate(zip(choices, models, strict=True), 1):
        console.print(f"[{number}/{len(choices)}] {name}, {_label(setting)}", markup=False)
        cached = folder / "rows" / f"{_fingerprint(config, run.path, setting)}.json"
        if not cached.exists():
            row = {"scheme": name, "setting": _label(setting)}
            row |= _measure(problem, solved, config.rounds)
            cached.parent.mkdir(parents=True, exist_ok=True)
            cached.write_text(json.dumps(row), encoding="utf-8")
        rows.append({**json.loads(cached.read_text(encoding="utf-8")), "scheme": name})
    about = (
        f"The weights of {config.run} solved by each scheme on {config.samples} held-out "
        f"samples in {exact.dtype}. The error is that of the state at depth T, root mean "
        f"square, relative to a solve with {config.reference.kind}, "
        f"{config.reference.steps_per_interval} steps in each interval. Memory is the "
        f"temporary memory of the compiled solve. By half its steps the error of the reference "
        f"is below {doubt:.0e}. {_cheapest(rows, config.tolerance)}"
    )
    report = Report(config.name, about, rows, "loss")
    write_report(folder, report)
    _plot(folder, rows)
    return report


def _settings(
    name: str, solver: SolverConfig, steps: tuple[int, ...], tolerances: tuple[float, ...]
) -> list[SolverConfig]:
    if not steps and not tolerances:
        raise InputError(
            f"schemes.{name}: give it steps, for example [1, 2, 4], or tolerances, for "
            "example [1.0e-2, 1.0e-3]."
        )
    fixed = [solver.model_copy(update={"steps_per_interval": n}) for n in steps]
    adaptive = [solver.model_copy(update={"rtol": x, "atol": x}) for x in tolerances]
    return [*fixed, *adaptive]


def _label(setting: SolverConfig) -> str:
    if setting.rtol is not None:
        return f"tolerance {setting.rtol:g}"
    return f"{setting.steps_per_interval} steps"


def _fingerprint(config: SolvingComparison, run: Path, setting: SolverConfig) -> str:
    """What a measurement depends on, as a file name."""
    parts = [
        config.run.as_posix(),
        (run / "summary.json").read_text(encoding="utf-8"),
        config.reference.model_dump_json(),
        setting.model_dump_json(),
        f"{config.samples} {config.rounds}",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _state(model: AbstractModel, inputs: Any) -> Array:
    return eqx.filter_jit(lambda m, x: m.solve(x).u1)(model, inputs)


def _relative(u: Array, exact: Array) -> float:
    return float(jnp.sqrt(jnp.mean((u - exact) ** 2) / jnp.mean(exact**2)))


def _measure(problem: _Problem, model: AbstractModel, rounds: int) -> dict[str, Any]:
    """Error, loss and cost of one scheme."""
    arrays, static = eqx.partition(model, eqx.is_array)

    def solve(arrays, inputs):
        solution = eqx.combine(arrays, static).solve(inputs)
        return solution.u1, solution.stats["field_evaluations"], solution.result

    inputs = jnp.asarray(problem.batch.inputs)
    u1, evaluations, result = jax.jit(solve)(arrays, inputs)
    logits = model.read_out(u1)
    targets = jnp.asarray(problem.batch.targets)
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets))
    cost = measure({"solve": (solve, (arrays, inputs))}, rounds=rounds)["solve"]
    succeeded = bool(jnp.all(result == diffrax.RESULTS.successful))
    return {
        "error": _relative(u1, problem.exact) if succeeded else None,
        "loss": float(loss) if succeeded else None,
        "field_evaluations": float(jnp.mean(evaluations)),
        "milliseconds": cost.milliseconds,
        "mebibytes": cost.mebibytes,
    }


def _cheapest(rows: list[dict[str, Any]], tolerance: float) -> str:
    """Which scheme reaches the tolerance with the fewest evaluations, and each other's."""
    best: dict[str, float] = {}
    for row in rows:
        if row["error"] is not None and row["error"] <= tolerance:
            cost = row["field_evaluations"]
            best[row["scheme"]] = min(cost, best.get(row["scheme"], cost))
    if not best:
        return f"No scheme reached a relative error of {tolerance:g}."
    ranked = ", ".join(f"{name} {n:g}" for name, n in sorted(best.items(), key=lambda x: x[1]))
    return f"Fewest field evaluations for a relative error of {tolerance:g}: {ranked}."


def _plot(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Work-precision diagrams."""
    names = list(dict.fromkeys(row["scheme"] for row in rows))
    for cost, label in (
        ("field_evaluations", "field evaluations"),
        ("milliseconds", "time of a solve (ms)"),
    ):
        curves = {}
        for name in names:
            mine = [r for r in rows if r["scheme"] == name and r["error"] is not None]
            mine.sort(key=lambda row: row[cost])
            curves[name] = ([r[cost] for r in mine], [r["error"] for r in mine])
        path = folder / f"work_precision_{cost}.png"
        plot_curves(path, curves, x=label, y="relative error at T", marker="o", log=True)
