"""A page on runs side by side: what they logged, drew and wrote."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..figures import Curve, Part, draw_panels, write_page
from ..training import Config, RunFolder, flat_values, read_metrics
from ..training.configuration.reader import spelled_scheme


# Columns of the summary that follow the losses.
_COST = ("parameters", "steps", "nfe", "evaluations", "seconds", "bad_steps", "rollbacks")


class RunRecord(NamedTuple):
    """A run, as far as it has come. Its name is unique on the page. Until it has finished, its
    summary is empty."""

    name: str
    folder: RunFolder
    config: Config
    lines: list[dict[str, Any]]
    summary: dict[str, Any]

    def logged(self, key: str) -> dict[int, float]:
        """The finite values of a figure of the log, by step."""
        return {x["step"]: x[key] for x in self.lines if x.get(key) is not None}

    def curve(self, key: str) -> Curve:
        """May be empty, so that a run has the same colour in all figures."""
        found = self.logged(key)
        return Curve(self.name, [*found], [*found.values()])


def report_runs(paths: Sequence[str | Path], output: Path, *, trust: bool = False) -> None:
    """Writes a page on runs, with tables and figures of what they logged, and the figures they
    drew. For `trust` see `load_run`.

    **Raises:** `InputError` for a folder that is no run, or has logged no step.
    """
    runs = read_runs(paths, trust=trust)
    names = [run.name for run in runs]
    about = f"{len(runs)} run{'s' * (len(runs) > 1)}: {', '.join(names)}."
    parts = [_results(runs), _logged(runs)]
    drawn = {
        f"{run.name}, {path.stem.replace('_', ' ')}": path
        for run in runs
        for path in run.folder.figures()
        if path.stem != "loss"
    }
    if drawn:
        parts.append(Part("Drawn by each at its end", figures=drawn))
    samples = {run.name: run.folder.load_sample() for run in runs}
    written = {name: text for name, text in samples.items() if text is not None}
    if written:
        parts.append(Part("Samples", "Written by each at the end of its run.", texts=written))
    if len(runs) > 1:
        parts.append(_differences(runs))
    write_page(output, f"Runs: {', '.join(names[:3])}{' …' * (len(names) > 3)}", about, parts)


def read_runs(paths: Sequence[str | Path], *, trust: bool = False) -> list[RunRecord]:
    """The records of the runs in some folders; for `trust` see `load_run`."""
    folders = {run.path.resolve(): run for run in map(RunFolder, paths)}
    short = [place.name for place in folders]
    records = []
    for place, folder in folders.items():
        config = folder.load_config(trust)
        lines = read_metrics(folder.metrics)
        if not any("loss" in line for line in lines):
            raise InputError(f"{folder.path} has logged no step of training; train it.")
        summary = folder.load_summary() if folder.summary.exists() else {}
        name = place.name if short.count(place.name) == 1 else str(folder.path)
        records.append(RunRecord(name, folder, config, lines, summary))
    return records


def _results(runs: list[RunRecord]) -> Part:
    rows = []
    for run in runs:
        losses = {k: x for k, x in run.summary.items() if k not in _COST}
        cost = {name: run.summary.get(name) for name in _COST}
        if not run.summary:
            losses = {"validation_loss": [None, *run.logged("validation_loss").values()][-1]}
            cost["steps"] = run.lines[-1]["step"]
        scheme = spelled_scheme(run.config.solver.description)
        rows.append({"run": run.name, "scheme": scheme, **losses, **cost})
    # Leave out columns without numbers, and counts of faults that never were.
    told = {k for row in rows for k, x in row.items() if x or (x == 0 and k not in _COST)}
    rows = [{k: v for k, v in row.items() if k in told} for row in rows]
    going_on = ", ".join(run.name for run in runs if not run.summary)
    about = "nfe: mean field evaluations of a step; evaluations: in all, of forward solves."
    about += f" Not finished: {going_on}." * bool(going_on)
    return Part("Results and cost", about, rows=rows)


def _logged(runs: list[RunRecord]) -> Part:
    """Losses by step, what a scheme has learned, and the cost of adaptive solves."""
    panels = {
        "training": [run.curve("loss") for run in runs],
        "validation": [run.curve("validation_loss") for run in runs],
    }
    figures = {
        "Training: the batch of a logged step. Validation: training.evaluate_samples samples "
        "on the way.": draw_panels(panels, x="step", y="loss")
    }
    keys = dict.fromkeys(key for run in runs for line in run.lines for key in line)
    learned = [key for key in keys if key.startswith("solver.")]
    adaptive = any(run.config.solver.rtol for run in runs)
    for key in [*learned, *["field_evaluations"] * adaptive]:
        curves = [run.curve(key) for run in runs]
        figure = draw_panels({"": curves}, x="step", y=key.replace("_", " "))
        figures[f"{key}, over training."] = figure
    return Part("Training", figures=figures)


def _differences(runs: list[RunRecord]) -> Part:
    """The keys in which configurations and code differ, except the name of the run."""
    told = {run.name: flat_values(run.config) for run in runs}
    for run in runs:
        told[run.name]["code"] = " then ".join(run.folder.sources)
    rows = []
    for key in dict.fromkeys(key for values in told.values() for key in values):
        found = {name: values.get(key) for name, values in told.items()}
        texts = {name: "–" if x is None else str(x) for name, x in found.items()}
        if key != "name" and len({*texts.values()}) > 1:
            rows.append({"key": key, **texts})
    names = {name: name for name in told}
    about = "" if rows else "None."
    return Part("Differences of configuration", about, rows=rows, headings=names)
