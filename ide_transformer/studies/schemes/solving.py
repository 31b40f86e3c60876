"""Schemes compared by solving: one set of trained weights, many schemes and step counts."""

import hashlib
import statistics
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from pydantic import Field, PositiveFloat
from rich.console import Console

from ...dynamics.meshes import relative_error
from ...errors import InputError
from ...figures import plot_curves
from ...models import Model
from ...pretrained.files import read_json
from ...reporting import write_json
from ...tasks import AbstractLoss, Batch
from ...training import (
    RunFolder,
    Section,
    SolverConfig,
    load_run,
    run_task,
    validated,
    with_solver,
)
from ...training.choice import Count
from ...training.folder import source
from .comparison import AbstractComparison, Rows
from .trials import about_sources


class SolverChoice(Section):
    """A scheme and the numbers of steps, or the tolerances, with which it solves."""

    solver: SolverConfig
    steps: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    tolerances: Annotated[tuple[PositiveFloat, ...], Field(strict=False)] = ()

    def settings(self, where: str) -> dict[str, SolverConfig]:
        """The scheme with each number of steps and each tolerance, by a label."""
        if not self.steps and not self.tolerances:
            raise InputError(
                f"{where}: give it steps, for example [1, 2, 4], or tolerances, for "
                "example [1.0e-2, 1.0e-3]."
            )
        fixed = {f"{n} steps": {"steps_per_interval": n} for n in self.steps}
        adaptive = {f"tolerance {x:g}": {"rtol": x, "atol": x} for x in self.tolerances}
        changes = (fixed | adaptive).items()
        given = self.solver.model_dump(mode="json", exclude_defaults=True)
        return {
            name: validated(SolverConfig, given | change, f"{where}, {name}")
            for name, change in changes
        }


class SolvingComparison(AbstractComparison):
    """One set of weights solved by many schemes.

    - `run`: the folder of a trained run.
    - `trust`: whether code that its configuration names may be imported, see `load_run`.
    - `samples`: held-out samples on which error and loss are measured.
    - `reference`: the tight solve against which errors are measured.
    - `tolerance`: the relative error at which schemes are compared.
    """

    double_precision: ClassVar[bool] = True

    mode: Literal["solve"]
    run: Annotated[Path, Field(strict=False)]
    trust: bool = False
    samples: Count = 64
    rounds: Annotated[int, Field(ge=2, lt=2**31)] = 5
    reference: SolverConfig = SolverConfig(kind="dopri8", steps_per_interval=16)
    tolerance: PositiveFloat = 1e-3
    schemes: Annotated[dict[str, SolverChoice], Field(min_length=1)]

    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        model, run = load_run(self.run, trust=self.trust)
        choices = [
            (name, label, setting, with_solver(model, setting))
            for name, choice in self.schemes.items()
            for label, setting in choice.settings(f"schemes.{name}").items()
        ]
        task = run_task(run, trust=self.trust)
        data, code = task.fingerprint(), source(run.load_config(self.trust))
        batch = next(task.held_out(self.samples))
        exact = _state(with_solver(model, self.reference), batch.inputs)
        problem = _Problem(model, batch, task.loss, exact)
        if self.reference.steps_per_interval < 2:
            raise InputError(
                f"reference: {self.reference} has no equal steps to be halved, by which "
                "its error is known; give steps_per_interval of 2 or more."
            )
        half = self.reference.steps_per_interval // 2
        halved = self.reference.model_copy(update={"steps_per_interval": half})
        doubt = problem.error(_state(with_solver(model, halved), batch.inputs))
        console.print(f"reference: error below {doubt:.1e}, by half its steps")
        rows, made = [], {}
        for number, (name, label, setting, solved) in enumerate(choices, 1):
            console.print(f"[{number}/{len(choices)}] {name}, {label}", markup=False)
            cached = folder / "rows" / f"{self._fingerprint(run, data, setting)}.json"
            row = _measured_before(cached)
            if row is None:
                row = {"scheme": name, "setting": label, "code": code}
                write_json(cached, row | _measure(problem, solved, self.rounds))
                row = read_json(cached)
            made.setdefault(row.pop("code"), []).append(f"{name}, {label}")
            rows.append({**row, "scheme": name})
        about = (
            f"The weights of {self.run} solved by each scheme on {len(exact)} held-out "
            f"samples in {exact.dtype}. The error is that of the state at depth T, root mean "
            f"square, relative to a solve with {self.reference}, "
            f"{self.reference.steps_per_interval} steps in each interval. Memory is the "
            "temporary memory of the compiled solve. By half its steps the error of the "
            f"reference is below {doubt:.0e}. {_cheapest(rows, self.tolerance)} "
            f"{about_sources(made)}"
        )
        return about, rows

    def draw(self, folder: Path, rows: Rows) -> None:
        """Work-precision diagrams."""
        axes = {
            "field_evaluations": "field evaluations",
            "milliseconds": "time of a solve (ms)",
        }
        solved = [row for row in rows if row["error"] is not None]
        for cost, x in axes.items():
            curves = {}
            for name in self.schemes:
                own = sorted(
                    (row[cost], row["error"]) for row in solved if row["scheme"] == name
                )
                curves[name] = [cost for cost, _ in own], [error for _, error in own]
            path, y = folder / f"work_precision_{cost}.png", "relative error at T"
            plot_curves(path, curves, x=x, y=y, marker="o", log="xy")

    def _fingerprint(self, run: RunFolder, data: str, setting: SolverConfig) -> str:
        """All that a measurement depends on but the code, as a file name."""
        parts = [
            self.run.as_posix(),
            run.config.read_text(encoding="utf-8"),
            run.summary.read_text(encoding="utf-8"),
            str(run.identity),
            data,
            self.reference.model_dump_json(),
            setting.model_dump_json(),
            f"{self.samples} {self.rounds}",
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _measured_before(file: Path) -> dict[str, Any] | None:
    """The row of a measurement that was made; `None` where none was, or the file is damaged."""
    try:
        row = read_json(file)
    except InputError:
        return None
    return row if {"field_evaluations", "milliseconds", "error"} <= row.keys() else None


class _Problem(NamedTuple):
    model: Model
    batch: Batch
    loss: AbstractLoss
    exact: Array

    def error(self, u: Array) -> float:
        """The relative error of a state at T."""
        return float(relative_error(u, self.exact))


def _state(model: Model, inputs: Any) -> Array:
    return eqx.filter_jit(lambda m, x: m.solve(x).u1)(model, inputs)


def _measure(problem: _Problem, model: Model, rounds: int) -> dict[str, Any]:
    """Error, loss and cost of one scheme."""
    arrays, static = eqx.partition(model, eqx.is_array)

    def solve(arrays, inputs):
        solution = eqx.combine(arrays, static).solve(inputs)
        return solution.u1, solution.stats["field_evaluations"], solution.succeeded

    inputs = jax.tree.map(jnp.asarray, problem.batch.inputs)
    program = jax.jit(solve).lower(arrays, inputs).compile()
    u1, evaluations, succeeded = jax.block_until_ready(program(arrays, inputs))
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(program(arrays, inputs))
        seconds.append(time.perf_counter() - began)
    memory: Any = program.memory_analysis()
    targets = jax.tree.map(jnp.asarray, problem.batch.targets)
    loss = problem.loss.measure(model.outputs(u1), targets)["loss"].value
    solved = bool(jnp.all(succeeded))
    return {
        "error": problem.error(u1) if solved else None,
        "loss": float(loss) if solved else None,
        "field_evaluations": float(jnp.mean(evaluations)),
        "milliseconds": 1e3 * statistics.median(seconds),
        "mebibytes": memory.temp_size_in_bytes / 2**20,
    }


def _cheapest(rows: Rows, tolerance: float) -> str:
    """The schemes that reach the tolerance, by their fewest evaluations."""
    best: dict[str, float] = {}
    for row in sorted(rows, key=lambda row: row["field_evaluations"]):
        if row["error"] is not None and row["error"] <= tolerance:
            best.setdefault(row["scheme"], row["field_evaluations"])
    if not best:
        return f"No scheme reached a relative error of {tolerance:g}."
    ranked = ", ".join(f"{name} {number:g}" for name, number in best.items())
    return f"Fewest field evaluations for a relative error of {tolerance:g}: {ranked}."
