"""Schemes compared by solving: one set of trained weights, many schemes and step counts."""

import functools as ft
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from pydantic import Field, PositiveFloat
from rich.console import Console

from ...dynamics.meshes import relative_error
from ...errors import InputError
from ...figures import plot_curves
from ...pretrained.files import read_json
from ...reporting import write_json
from ...tasks import AbstractLoss, Batch
from ...training import Section, SolverConfig, load_run, run_task, validated, with_solver
from ...training.choice import Count
from ...training.folder import source
from ..measure import Data, Measured, measure, solved
from .comparison import AbstractComparison, Faults, Rows, about_sources, fingerprint


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
        faults, reference = Faults(), self.reference
        half = reference.steps_per_interval // 2
        if not half:
            faults.found.append(
                f"reference: {reference} has no equal steps to be halved, by which its error "
                "is known; give steps_per_interval of 2 or more."
            )
        settings = faults.each(lambda x: self.schemes[x].settings(f"schemes.{x}"), self.schemes)
        named = {(name, label): x for name, own in settings.items() for label, x in own.items()}
        loaded = faults.each(lambda path: load_run(path, trust=self.trust), [self.run])
        if not loaded:
            faults.refuse()
        ((model, run),) = loaded.values()
        choices = faults.each(lambda x: with_solver(model, named[x]), named)
        tasks = faults.each(lambda path: run_task(run, trust=self.trust), [self.run])
        faults.refuse()
        (task,) = tasks.values()
        batch = next(task.held_out(self.samples))
        exact, _ = solved(with_solver(model, reference), batch.inputs)
        data = data_of(batch, task.loss, exact)
        halved = reference.model_copy(update={"steps_per_interval": half})
        doubt = measure(with_solver(model, halved), data).error
        console.print(f"reference: error about {doubt:.1e}, by half its steps")
        if not doubt <= self.tolerance:
            raise InputError(
                f"{self.name}: reference: {reference} with "
                f"{reference.steps_per_interval} steps and with {half} differ by {doubt:.1e}, "
                f"more than tolerance={self.tolerance:g}, so errors against it would say "
                "nothing; give it more steps_per_interval."
            )
        # A run without a summary may go on.
        done = run.summary.is_file()
        made = run.summary.read_text("utf-8") if done else f"step {run.newest_step}"
        made_of = [
            *(self.run.as_posix(), run.config.read_text("utf-8"), made),
            *(str(run.identity), task.fingerprint(), reference.model_dump_json()),
            f"{self.samples} {self.rounds}",
        ]
        code = source(run.load_config(self.trust))
        rows, made = [], {}
        for number, ((name, label), solving) in enumerate(choices.items(), 1):
            console.print(f"[{number}/{len(choices)}] {name}, {label}", markup=False)
            key = fingerprint(*made_of, named[name, label].model_dump_json())
            timed = ft.partial(measure, solving, data, self.rounds)
            row = _kept(folder / f"rows/{key}.json", code, timed)
            made.setdefault(row.pop("code"), []).append(f"{name}, {label}")
            rows.append({"scheme": name, "setting": label, **row})
        about = (
            f"The weights of {self.run} solved by each scheme on {len(exact)} held-out "
            f"samples in {exact.dtype}. The error is that of the state at depth T, root mean "
            f"square, relative to a solve with {reference}, "
            f"{reference.steps_per_interval} steps in each interval. Memory is the "
            "temporary memory of the compiled solve. By half its steps the error of the "
            f"reference is about {doubt:.1e}. {_cheapest(rows, self.tolerance)} "
            f"{about_sources(made)}"
        )
        return about, rows

    @property
    def headings(self) -> dict[str, str]:
        return {
            "error": "relative error of the state at T",
            "milliseconds": "ms of a solve",
            "mebibytes": "temporary memory (MiB)",
        }

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
                own = [(row[cost], row["error"]) for row in solved if row["scheme"] == name]
                own.sort(key=lambda point: (point[0], -point[1]))
                curves[name] = [cost for cost, _ in own], [error for _, error in own]
            path, y = folder / f"work_precision_{cost}.png", "relative error at T"
            look = dict(title="The error of a solve, and its cost", marker="o", log="xy")
            plot_curves(path, curves, x=x, y=y, **look)


def data_of(batch: Batch, loss: AbstractLoss, exact: Array) -> Data:
    """A batch with its loss, and the relative error of the state at depth T."""
    targets = jax.tree.map(jnp.asarray, batch.targets)
    return Data(
        batch.inputs,
        lambda outputs: loss.measure(outputs, targets)["loss"].value,
        lambda u1, outputs: relative_error(u1, exact),
    )


def _kept(file: Path, code: str, measured: Callable[[], Measured]) -> dict[str, Any]:
    """The row of a measurement, which is made where it was not or where its file is damaged."""
    try:
        row = read_json(file)
    except InputError:
        row = {}
    if not {"code", "field_evaluations", "milliseconds", "error"} <= row.keys():
        found = measured()
        failed = not np.isfinite(found.error)
        row = {
            "code": code,
            "error": None if failed else found.error,
            "loss": None if failed else found.loss,
            "field_evaluations": found.evaluations,
            "milliseconds": found.milliseconds,
            "mebibytes": found.mebibytes,
        }
        write_json(file, row)
    return row


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
