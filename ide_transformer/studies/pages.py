"""A page on runs side by side: what they logged, drew and wrote.

A run has the same colour in all figures: those without a curve are drawn as an empty one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..figures import Curve, Part, draw_panels, write_page
from ..training import Config, RunFolder, flat_values, read_metrics
from ..training.configuration.reader import spelled_scheme


# Of the summary, in the order in which a reader asks for them; the losses come first.
_COST = ("parameters", "steps", "nfe", "evaluations", "seconds", "bad_steps", "rollbacks")


class RunRecord(NamedTuple):
    """A run, as far as it has come. No other run of the page has its name; the summary is
    empty for a run that goes on."""

    name: str
    folder: RunFolder
    config: Config
    lines: list[dict[str, Any]]
    summary: dict[str, Any]

    def logged(self, key: str) -> dict[int, float]:
        """A figure of the log by the step, where it has a finite value."""
        return {x["step"]: x[key] for x in self.lines if x.get(key) is not None}

    def curve(self, key: str) -> Curve:
        found = self.logged(key)
        return Curve(self.name, [*found], [*found.values()])


def report_runs(paths: Sequence[str | Path], output: Path, *, trust: bool = False) -> None:
    """Writes a page on some runs: figures and tables of what they logged, and the figures that
    they drew. It is written all of it or nothing; for `trust` see `load_run`."""
    if output.is_dir() or not output.parent.is_dir():
        what = "it is a folder" if output.is_dir() else f"there is no folder {output.parent}"
        raise InputError(f"output {output}: {what}; give the path of a file.")
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
    """The records of runs, by their folders; for `trust` see `load_run`."""
    folders = {run.path.resolve(): run for run in map(RunFolder, paths)}
    short = [place.name for place in folders]
    records = []
    for place, folder in folders.items():
        config = folder.load_config(trust)
        lines = read_metrics(folder.metrics)
        if not any("loss" in line for line in lines):
            raise InputError(
                f"{folder.path} has logged no step of training ({folder.metrics.name}), so "
                "there is nothing to show; train it, or name another run."
            )
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
        rows.append(
            {
                "run": run.name,
                "scheme": spelled_scheme(run.config.solver.description),
                **losses,
                **cost,
            }
        )
    # A column without any number says nothing, nor does one of faults that never were.
    told = {k for row in rows for k, x in row.items() if x or (x == 0 and k not in _COST)}
    rows = [{k: v for k, v in row.items() if k in told} for row in rows]
    about = (
        "nfe: evaluations of the field in the solves of a step, their mean; evaluations: of "
        "all forward solves of training; seconds: of all its starts, with compiling."
    )
    going_on = ", ".join(run.name for run in runs if not run.summary)
    about += f" Not finished: {going_on}." * bool(going_on)
    return Part("Results and cost", about, rows=rows)


def _logged(runs: list[RunRecord]) -> Part:
    """The losses over the steps, what a scheme has learned, and the cost of adaptive solves."""
    panels = {
        "training": [run.curve("loss") for run in runs],
        "validation": [run.curve("validation_loss") for run in runs],
    }
    figures = {
        "Training: the batch of a logged step. Validation: the evaluations on the way, of "
        "training.evaluate_samples samples.": draw_panels(panels, x="step", y="loss")
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
    """The keys in which the configurations differ, but for the name of the run; and the code
    that made them."""
    told = {run.name: flat_values(run.config) for run in runs}
    for run in runs:
        told[run.name]["code"] = " then ".join(run.folder.sources)
    rows = []
    for key in dict.fromkeys(key for values in told.values() for key in values):
        found = {name: values.get(key) for name, values in told.items()}
        texts = {name: "–" if x is None else str(x) for name, x in found.items()}
        if key != "name" and len({*texts.values()}) > 1:
            rows.append({"key": key, **texts})
    about = "What is not the same in all runs." if rows else "None."
    names = {name: name for name in told}
    return Part("Differences of configuration", about, rows=rows, headings=names)
