"""Schemes compared by solving: one set of trained weights, many schemes and step counts."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, PositiveFloat
from rich.console import Console

from ...dynamics.meshes import relative_error
from ...errors import InputError, at
from ...figures import plot_curves
from ...packages import checksum
from ...pretrained.files import read_json
from ...reporting import write_json
from ...training import RunFolder, Section, SolverConfig, run_task, validated, with_solver
from ...training.configuration.reader import spelled_scheme
from ...training.configuration.section import Count
from ...training.folder.loading import restored
from ...training.folder.run_folder import is_logged, source
from ...training.folder.starting import checksum_of_weights
from ..measure import Data, measure, solved
from .comparison import AbstractComparison, Faults, Rows, about_sources, fingerprint


# What a row has of a solve, and of that its costs.
_COSTS = ("field_evaluations", "milliseconds")
_FIGURES = ("error", "loss", *_COSTS, "mebibytes")


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
        fixed = {f"{n} steps": {"steps": n} for n in self.steps}
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
    - `samples`: validation samples, evenly spread, on which error and loss are measured.
    - `reference`: the tight solve against which errors are measured.
    - `tolerance`: the relative error at which schemes are compared.
    """

    double_precision: ClassVar[bool] = True

    mode: Literal["solve"]
    run: Annotated[Path, Field(strict=False)]
    trust: bool = False
    samples: Count = 64
    rounds: Annotated[int, Field(ge=2, lt=2**31)] = 5
    reference: SolverConfig = SolverConfig(kind="dopri8", steps=16)
    tolerance: PositiveFloat = 1e-3
    schemes: Annotated[dict[str, SolverChoice], Field(min_length=1)]

    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        faults = Faults()
        reference = self.reference
        named = spelled_scheme(reference.description)
        half = reference.steps // 2
        if not half:
            faults.add(
                f"reference: {named} has no equal steps to be halved, by which its error "
                "is known; give steps of 2 or more."
            )
        settings = faults.each(lambda x: self.schemes[x].settings(f"schemes.{x}"), self.schemes)
        named = {(name, label): x for name, own in settings.items() for label, x in own.items()}
        run = RunFolder(self.run)
        loaded = faults.each(
            lambda run: restored(run, run.load_config(self.trust), "newest", "trained"), [run]
        )
        if not loaded:
            faults.refuse()
        ((model, step),) = loaded.values()
        choices = faults.each(
            lambda x: with_solver(model, named[x]), named, lambda x: f"schemes.{', '.join(x)}"
        )
        tasks = faults.each(lambda run: run_task(run, trust=self.trust), [run])
        faults.refuse()
        (task,) = tasks.values()
        batch = next(task.held_out(self.samples, self.samples))
        exact, _ = solved(with_solver(model, reference), batch.inputs)
        targets = jax.tree.map(jnp.asarray, batch.targets)
        data = Data(
            batch.inputs,
            lambda outputs: task.loss.measure(outputs, targets)["loss"].value,
            lambda u1, outputs: relative_error(u1, exact),
        )
        halved = reference.model_copy(update={"steps": half})
        doubt = measure(with_solver(model, halved), data).error
        console.print(f"reference: error about {doubt:.1e}, by half its steps")
        if not doubt <= self.tolerance:
            raise InputError(
                f"{self.name}: reference: {named} with "
                f"{reference.steps} steps and with {half} differ by {doubt:.1e}, "
                f"more than tolerance={self.tolerance:g}, so errors against it would say "
                "nothing; give it more steps."
            )
        made_of = {
            "run": run.identity,
            "step": step,
            "weights": checksum_of_weights(model),
            "configuration": checksum(run.config),
            "data": task.fingerprint(),
            "samples": self.samples,
            "reference": reference.model_dump_json(),
            "rounds": self.rounds,
        }
        code = source(run.load_config(self.trust))
        rows = []
        made = {}
        for number, ((name, label), solving) in enumerate(choices.items(), 1):
            key = fingerprint(named[name, label].model_dump_json())
            row, said = _kept(file := folder / f"rows/{key}.json", made_of)
            console.print(f"[{number}/{len(choices)}] {name}, {label}: {said}")
            if not row:
                with at(f"schemes.{name}, {label}"):
                    found = measure(solving, data, self.rounds)
                failed = not np.isfinite(found.error)
                row = {
                    "made_of": made_of,
                    "code": code,
                    "error": None if failed else found.error,
                    "loss": None if failed else found.loss,
                    "field_evaluations": found.evaluations,
                    "milliseconds": found.milliseconds,
                    "mebibytes": found.mebibytes,
                }
                write_json(file, row)
            made.setdefault(row["code"], []).append(f"{name}, {label}")
            figures = {column: row[column] for column in _FIGURES}
            rows.append({"scheme": name, "setting": label, **figures})
        about = (
            f"The weights of {self.run} at step {step} ({made_of['weights']}) solved by each "
            f"scheme on {len(exact)} samples of {task.tokens_per_sample} tokens, spread evenly "
            f"over the validation part, in {exact.dtype}. The error is that of the state at "
            f"depth T, root mean square, relative to a solve with {named}, "
            f"{reference.steps} steps in each layer. Memory is the "
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
            path = folder / f"work_precision_{cost}.png"
            look = dict(title="The error of a solve, and its cost", marker="o", log="xy")
            plot_curves(path, curves, x=x, y="relative error at T", **look)


def _kept(file: Path, made_of: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The row that is kept, if there is one of the same things, and what is done with it."""
    if not file.exists():
        return {}, "measured"
    try:
        row = read_json(file)
        there = dict(row["made_of"])
        # A solve that failed has no error and no loss.
        whole = all(is_logged(row[x]) for x in _FIGURES) and None not in map(row.get, _COSTS)
        if not whole or not isinstance(row["code"], str):
            raise ValueError
    except (InputError, KeyError, TypeError, ValueError):
        return {}, f"measured again, since {file} is damaged"
    changed = [
        f"{x} ({there.get(x)} there)" for x, own in made_of.items() if there.get(x) != own
    ]
    if changed:
        return {}, f"measured again, with another {', '.join(changed)}"
    return row, "kept"


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
