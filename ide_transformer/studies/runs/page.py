"""The page of a report.

A run has the same colour in all figures: those without a curve are drawn as an empty one."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...figures import Curve, Part, Picture, draw_panels, write_page
from ...training import flat_values
from .measured import SAMPLES, Measured, RunRecord, measure, read_runs


# Of the summary, in the order in which a reader asks for them; the losses come first.
_COST = ("parameters", "steps", "nfe", "evaluations", "seconds", "bad_steps", "rollbacks")


def report_runs(
    paths: Sequence[str | Path],
    output: Path,
    say: Callable[[str], None] = lambda line: None,
    *,
    trust: bool = False,
) -> None:
    """Writes a page on some runs: figures and tables of what they logged, and of what the
    models of their newest checkpoints do on held-out samples. It is written at the end, all of
    it or nothing. `say` is called with lines on the progress; for `trust` see `load_run`."""
    if output.is_dir() or not output.parent.is_dir():
        what = "it is a folder" if output.is_dir() else f"there is no folder {output.parent}"
        raise InputError(f"output {output}: {what}; give the path of a file.")
    runs = read_runs(paths, trust=trust)
    measured: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    for number, run in enumerate(runs, 1):
        say(f"[{number}/{len(runs)}] {run.name}")
        try:
            measured[run.name] = measure(run)
        except (InputError, OSError) as error:
            missing[run.name] = str(error)
            say(f"warning: {run.name} is shown without its model: {error}")
    parts = [
        _results(runs),
        _losses(runs, measured),
        _norms(runs, measured, missing),
        _coefficients(runs, measured),
        _adaptive(runs, measured),
        _samples(runs),
        _differences(runs),
    ]
    names = [run.name for run in runs]
    about = f"{len(runs)} run{'s' * (len(runs) > 1)}: {', '.join(names)}."
    shown = [part for part in parts if part is not None]
    write_page(output, f"Runs: {', '.join(names[:3])}{' …' * (len(names) > 3)}", about, shown)


def _results(runs: list[RunRecord]) -> Part:
    rows = []
    for run in runs:
        losses = {k: x for k, x in run.summary.items() if k not in _COST}
        cost = {name: run.summary.get(name) for name in _COST}
        if not run.summary:
            steps, values = run.logged("validation_loss")
            losses = {"validation_loss": values[-1]} if steps else {}
            cost["steps"] = run.lines[-1]["step"]
        rows.append({"run": run.name, "scheme": str(run.config.solver), **losses, **cost})
    # A column without any number says nothing.
    told = {key for row in rows for key, value in row.items() if value not in (None, 0)}
    rows = [{k: v for k, v in row.items() if k in told} for row in rows]
    going_on = [run.name for run in runs if not run.summary]
    about = (
        "nfe: evaluations of the field in a solve, mean over the steps; evaluations: of "
        "all forward solves of training; seconds: since its last start, with compiling."
    )
    if going_on:
        about += f" Not finished: {', '.join(going_on)}."
    return Part("Results and cost", about, rows=rows)


def _losses(runs: list[RunRecord], measured: dict[str, Measured]) -> Part:
    labels = {x.loss_label for x in measured.values()}
    panels = {
        "training": [run.curve("loss") for run in runs],
        "validation": [run.curve("validation_loss") for run in runs],
    }
    label = labels.pop() if len(labels) == 1 else "loss"
    figure = draw_panels(panels, x="step", y=label)
    caption = "Training: the batch of a logged step. Validation: the evaluations on the way."
    return Part("Loss", pictures=[Picture(figure, caption)])


def _norms(
    runs: list[RunRecord], measured: dict[str, Measured], missing: dict[str, str]
) -> Part:
    about = (
        f"Root mean squares over depth, of the newest checkpoint on {SAMPLES} held-out samples."
    )
    for name, reason in missing.items():
        about += f" {name} is not drawn: {reason}"
    if not measured:
        return Part("Norms over depth", about)
    panels: dict[str, list[Curve]] = {"state": [], "increment": [], "weights θ(t)": []}
    for name in (run.name for run in runs):
        curves: list[tuple] = [([], [])] * 3
        if name in measured:
            depths, state, increment = map(np.asarray, measured[name].profile)
            middles = (depths[1:] + depths[:-1]) / 2
            weights = middles, measured[name].weights
            curves = [(depths, state), (depths[1:], increment), weights]
        for panel, curve in zip(panels.values(), curves, strict=True):
            panel.append(Curve(name, *curve))
    axes = dict(x="depth t (layers)", y="root mean square", marker="o")
    caption = (
        "State: u at the boundaries of the intervals. Increment: what each interval adds. "
        "Weights: of all operators, in the middle of each interval."
    )
    picture = Picture(draw_panels(panels, log="y", **axes), caption)
    return Part("Norms over depth", about, [picture])


def _coefficients(runs: list[RunRecord], measured: dict[str, Measured]) -> Part | None:
    names = dict.fromkeys(
        key for run in runs for line in run.lines for key in line if key.startswith("solver.")
    )
    pictures = []
    for name in names:
        figure = draw_panels({"": [run.curve(name) for run in runs]}, x="step", y=name)
        pictures.append(Picture(figure, f"{name} of the scheme, over training."))
    terms = {name: x.coefficients for name, x in measured.items() if x.coefficients is not None}
    if terms:
        found = {run.name: terms.get(run.name, np.zeros(0)) for run in runs}
        curves = [Curve(name, np.arange(len(x)), x) for name, x in found.items()]
        axes = dict(x="term k", y="root mean square of Θ_k", marker="o")
        figure = draw_panels({"": curves}, log="y", **axes)
        caption = "Coefficients of the control θ(t) = Σ_k φ_k(t) Θ_k, of all operators."
        pictures.append(Picture(figure, caption))
    return Part("Learned coefficients", pictures=pictures) if pictures else None


def _adaptive(runs: list[RunRecord], measured: dict[str, Measured]) -> Part | None:
    tried = {name: x.attempts for name, x in measured.items() if x.attempts is not None}
    if not tried:
        return None
    panels, rows = {}, []
    for name, (depths, sizes, accepted) in tried.items():
        panels[name] = [
            Curve("accepted", depths[accepted], sizes[accepted]),
            Curve("rejected", depths[~accepted], sizes[~accepted], joined=False),
        ]
        number = {"accepted": int(accepted.sum()), "rejected": int((~accepted).sum())}
        rows.append({"run": name, **number, "smallest": sizes.min(), "largest": sizes.max()})
    axes = dict(x="depth t (layers)", y="step size (layers)", marker="o")
    made = [
        run.curve("field_evaluations") if run.name in tried else Curve(run.name, [], [])
        for run in runs
    ]
    evaluations = draw_panels({"": made}, x="step", y="field evaluations of a solve")
    return Part(
        "Adaptive steps",
        f"Steps that the controller tried on {SAMPLES} held-out samples, the same for all.",
        [
            Picture(
                draw_panels(panels, log="y", **axes), "Each step at the depth where it begins."
            ),
            Picture(evaluations, "Cost of a solve while the run was trained."),
        ],
        rows,
    )


def _samples(runs: list[RunRecord]) -> Part | None:
    written = {run.name: run.sample for run in runs if run.sample is not None}
    about = "Written by each model at the end of its run."
    return Part("Samples", about, texts=written) if written else None


def _differences(runs: list[RunRecord]) -> Part | None:
    """The keys in which the configurations differ, but for the name of the run; and the code
    that made them."""
    if len(runs) < 2:
        return None
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
    return Part("Differences of configuration", about, rows=rows)
