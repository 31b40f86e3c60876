"""Writes a page on runs side by side: results, logs, figures and samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..figures import Curve, Part, draw_panels, write_page
from ..training import Config, RunFolder, flat_values, read_metrics


# The columns of a summary after the losses.
_COST = ("parameters", "steps", "nfe", "evaluations", "seconds", "bad_steps", "rollbacks")


class RunRecord(NamedTuple):
    """A run, finished or not. Its name is unique on the page. An unfinished run has an empty
    `summary`."""

    name: str
    folder: RunFolder
    config: Config
    lines: list[dict[str, Any]]
    summary: dict[str, Any]

    def logged_values(self, key: str) -> dict[int, float]:
        """The finite values of a key of the log, by step."""
        return {x["step"]: x[key] for x in self.lines if x.get(key) is not None}

    def curve(self, key: str) -> Curve:
        """The curve of a key, perhaps empty, so that a run has one colour in all figures."""
        values = self.logged_values(key)
        return Curve(self.name, [*values], [*values.values()])


def report_runs(folders: Sequence[RunFolder], output: Path) -> None:
    """Writes a page on runs, with their results, learning curves, figures and samples.

    **Raises:** `InputError` for a folder that is not a run, or has logged no step.
    """
    runs = read_runs(folders)
    names = [run.name for run in runs]
    about = f"{'Run' if len(runs) == 1 else 'Runs'}: {', '.join(names)}."
    parts = [_results(runs), _learning_curves(runs)]
    figures = {
        f"{run.name}, {path.stem.replace('_', ' ')}": path
        for run in runs
        for path in run.folder.figures()
        if path.stem != "loss"
    }
    if figures:
        parts.append(Part("Figures at the end of each run", figures=figures))
    samples = {run.name: run.folder.load_sample() for run in runs}
    texts = {name: text for name, text in samples.items() if text is not None}
    if texts:
        parts.append(Part("Samples", "Generated at the end of each run.", texts=texts))
    if len(runs) > 1:
        parts.append(_differences(runs))
    title = ", ".join(names if len(names) <= 3 else [*names[:3], "…"])
    write_page(output, f"Runs: {title}", about, parts)


def read_runs(folders: Sequence[RunFolder]) -> list[RunRecord]:
    """Reads the records of runs from their folders."""
    runs = {folder.path.resolve(): folder for folder in folders}
    short_names = [path.name for path in runs]
    records = []
    for path, folder in runs.items():
        config = folder.load_config()
        lines = read_metrics(folder.metrics)
        if not any("loss" in line for line in lines):
            raise InputError(f"{folder.path} has logged no step of training; train it.")
        summary = folder.load_summary() if folder.summary.exists() else {}
        name = path.name if short_names.count(path.name) == 1 else str(folder.path)
        records.append(RunRecord(name, folder, config, lines, summary))
    return records


def _results(runs: list[RunRecord]) -> Part:
    rows = []
    for run in runs:
        losses = {k: x for k, x in run.summary.items() if k not in _COST}
        cost = {name: run.summary.get(name) for name in _COST}
        if not run.summary:
            evaluations = run.logged_values("validation_loss")
            losses = {"validation_loss": [None, *evaluations.values()][-1]}
            cost["steps"] = run.lines[-1]["step"]
        scheme = run.config.solver.label
        rows.append({"run": run.name, "scheme": scheme, **losses, **cost})
    # Leaves out columns without values, and costs that are 0 in all runs.
    columns = {k for row in rows for k, x in row.items() if x or (x == 0 and k not in _COST)}
    rows = [{k: v for k, v in row.items() if k in columns} for row in rows]
    unfinished = ", ".join(run.name for run in runs if not run.summary)
    about = "nfe: mean field evaluations of a step; evaluations: total of forward solves."
    if unfinished:
        about += f" Not finished: {unfinished}."
    return Part("Results and cost", about, rows=rows)


def _learning_curves(runs: list[RunRecord]) -> Part:
    """Losses, learned numbers of a scheme, and the cost of adaptive solves, by step."""
    panels = {
        "training": [run.curve("loss") for run in runs],
        "validation": [run.curve("validation_loss") for run in runs],
    }
    figures = {
        "Training: the batch of a logged step. Validation: training.evaluate_samples "
        "samples.": draw_panels(panels, x="step", y="loss")
    }
    keys = dict.fromkeys(key for run in runs for line in run.lines for key in line)
    learned = [key for key in keys if key.startswith("solver.")]
    adaptive = any(run.config.solver.rtol for run in runs)
    for key in [*learned, "field_evaluations"] if adaptive else learned:
        curves = [run.curve(key) for run in runs]
        figure = draw_panels({"": curves}, x="step", y=key.replace("_", " "))
        figures[f"{key}, over training."] = figure
    return Part("Training", figures=figures)


def _differences(runs: list[RunRecord]) -> Part:
    """The keys in which configurations and code differ, except the name of the run."""
    configs = {run.name: flat_values(run.config) for run in runs}
    for run in runs:
        configs[run.name]["code"] = " then ".join(run.folder.sources)
    rows = []
    for key in dict.fromkeys(key for config in configs.values() for key in config):
        values = {name: config.get(key) for name, config in configs.items()}
        texts = {name: "–" if x is None else str(x) for name, x in values.items()}
        if key != "name" and len({*texts.values()}) > 1:
            rows.append({"key": key, **texts})
    names = {name: name for name in configs}
    about = "" if rows else "None."
    return Part("Differences of configuration", about, rows=rows, headings=names)
