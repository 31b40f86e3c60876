"""Compares schemes by solving one set of trained weights with each."""

import json
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from ..arguments import PositiveFloat, at_least, below
from ..dynamics import relative_error
from ..errors import ConfigError, at
from ..packages import checksum
from ..pretrained.files import read_json
from ..reporting import write_json
from ..training import RunFolder, Section, SolverConfig, run_task, section, with_solver
from ..training.configuration.section import Count, not_empty
from ..training.folder.loading import checksum_of_weights, restore_model
from ..training.folder.run_folder import source
from .comparison import AbstractComparison, Rows, about_sources, fingerprint
from .measure import Data, measure, solve


@section
class SolverChoice(Section):
    """A scheme, and the numbers of steps or the tolerances with which it solves.

    - `solver`: the section `solver` of a run.
    - `steps`: equal steps in each layer.
    - `tolerances`: relative and absolute tolerances of adaptive steps.
    """

    solver: SolverConfig
    steps: tuple[Count, ...] = ()
    tolerances: tuple[PositiveFloat, ...] = ()

    def __post_init__(self) -> None:
        if not self.steps and not self.tolerances:
            raise ConfigError(
                f"{self.key}: set steps, for example [1, 2, 4], or tolerances, for example "
                "[1.0e-2]."
            )
        _ = self.settings

    @property
    def settings(self) -> dict[str, SolverConfig]:
        """The section `solver` in each setting, by label."""
        fixed = {f"{n} steps": {"steps": n} for n in self.steps}
        adaptive = {f"tolerance {x:g}": {"rtol": x, "atol": x} for x in self.tolerances}
        return {
            label: SolverConfig.read({**self.solver.changes(), **changes}, self.solver.key)
            for label, changes in {**fixed, **adaptive}.items()
        }


@section
class SolvingComparison(AbstractComparison):
    """Solves one set of weights with many schemes.

    - `run`: the folder of a trained run.
    - `trust`: whether to import code that the configuration of the run names, see `load_run`.
    - `samples`: the number of validation samples to measure on, evenly spread.
    - `rounds`: how often a solve is timed.
    - `reference`: the solve that counts as exact.
    - `tolerance`: the relative error for which the report names the cheapest schemes.
    """

    double_precision: ClassVar[bool] = True

    mode: Literal["solve"]
    run: Path
    trust: bool = False
    samples: Count = 64
    rounds: Annotated[int, at_least(2), below(2**31)] = 5
    reference: SolverConfig = SolverConfig(kind="dopri8", steps=16)
    tolerance: PositiveFloat = 1e-3
    schemes: Annotated[dict[str, SolverChoice], not_empty]

    def __post_init__(self) -> None:
        if self.reference.steps < 2:
            raise ConfigError(
                f"{self.reference.key / 'steps'}={self.reference.steps}: half of them measure "
                "the error of the reference; set 2 or more."
            )

    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        run = RunFolder(self.run, trust=self.trust)
        config = run.load_config()
        model, step = restore_model(run, config, "newest", "trained")
        solves = []
        for name, choice in self.schemes.items():
            for label, setting in choice.settings.items():
                with at(choice.key):
                    solves.append((name, label, setting, with_solver(model, setting)))
        task = run_task(run)
        batch = next(task.held_out(self.samples, self.samples))
        reference = self.reference
        exact, _ = solve(with_solver(model, reference), batch.inputs)
        targets = jax.tree.map(jnp.asarray, batch.targets)
        data = Data(
            batch.inputs,
            lambda outputs: task.loss.measure(outputs, targets)["loss"].value,
            lambda u1, outputs: relative_error(u1, exact),
        )
        half = reference.steps // 2
        halved = with_solver(model, reference.replace(steps=half))
        reference_error = measure(halved, data).error
        console.print(f"reference: error about {reference_error:.1e}, by half its steps")
        scheme = reference.label
        if not reference_error <= self.tolerance:
            raise ConfigError(
                f"{reference.key}: with {reference.steps} and {half} steps it differs by "
                f"{reference_error:.1e}, above tolerance={self.tolerance:g}; set more steps."
            )
        weights = checksum_of_weights(model)
        inputs = [run.identity, step, weights, checksum(run.config), task.fingerprint()]
        inputs += [self.samples, self.rounds, json.dumps(reference.as_tree())]
        code = source(config)
        rows = []
        solves_by_code: dict[str, list[str]] = {}
        for index, (name, label, setting, configured) in enumerate(solves, 1):
            key = fingerprint(json.dumps(inputs), json.dumps(setting.as_tree()))
            file = folder / f"rows/{key}.json"
            status = "stored" if file.exists() else "measured"
            console.print(f"[{index}/{len(solves)}] {name}, {label}: {status}")
            if not file.exists():
                with at(self.schemes[name].key):
                    measured = measure(configured, data, self.rounds)
                figures = {
                    "error": measured.error,
                    "loss": measured.loss if np.isfinite(measured.error) else None,
                    "field_evaluations": measured.evaluations,
                    "milliseconds": measured.milliseconds,
                    "mebibytes": measured.mebibytes,
                }
                write_json(file, {"code": code, "figures": figures})
            record = read_json(file)
            solves_by_code.setdefault(record["code"], []).append(f"{name}, {label}")
            rows.append({"scheme": name, "setting": label, **record["figures"]})
        about = (
            f"The weights of {self.run} at step {step} ({weights}) solved by each scheme on "
            f"{len(exact)} samples of {task.tokens_per_sample} tokens, spread evenly over the "
            f"validation part, in {exact.dtype}. The error is the relative root mean square "
            f"error of the state at depth T, against {scheme} with {reference.steps} steps in "
            f"each layer, whose own error is about {reference_error:.1e}. "
            f"{self._rank_schemes(rows)} {about_sources(solves_by_code)}"
        )
        return about, rows

    def _rank_schemes(self, rows: Rows) -> str:
        """A sentence on the schemes that reach the tolerance, by their fewest evaluations."""
        best: dict[str, float] = {}
        for row in sorted(rows, key=lambda row: row["field_evaluations"]):
            if row["error"] is not None and row["error"] <= self.tolerance:
                best.setdefault(row["scheme"], row["field_evaluations"])
        if not best:
            return f"No scheme reached a relative error of {self.tolerance:g}."
        ranking = ", ".join(f"{name} {evaluations:g}" for name, evaluations in best.items())
        return (
            f"Fewest field evaluations for a relative error of {self.tolerance:g}: {ranking}."
        )

    @property
    def headings(self) -> dict[str, str]:
        return {
            "error": "relative error of the state at T",
            "milliseconds": "ms of a solve",
            "mebibytes": "temporary memory (MiB)",
        }

    def draw(self, folder: Path, rows: Rows) -> None:
        """Draws error against field evaluations and against time."""
        from ..figures import plot_curves

        axes = {"field_evaluations": "field evaluations", "milliseconds": "ms of a solve"}
        for cost, x in axes.items():
            curves = {}
            for name in self.schemes:
                points = [
                    (row[cost], row["error"])
                    for row in rows
                    if row["scheme"] == name and row["error"] is not None
                ]
                points.sort(key=lambda point: (point[0], -point[1]))
                curves[name] = [x for x, _ in points], [y for _, y in points]
            look = dict(title="The error of a solve, and its cost", marker="o", log="xy")
            path = folder / f"work_precision_{cost}.png"
            plot_curves(path, curves, x=x, y="relative error at T", **look)
