"""Measures all methods that make a trained model shorter, for several calibration draws."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.compare import Data, fingerprint, measure, standard_error
from ide_transformer.contrib.depth_problem import Problem, make_problem
from ide_transformer.contrib.meshes import native_target
from ide_transformer.contrib.shortening import METHODS, PUBLISHED, Given
from ide_transformer.contrib.windows import TEMPERATURES, best_temperature
from ide_transformer.errors import InputError
from ide_transformer.models import Model, compiled_outputs
from ide_transformer.reporting import Report, Terminal, duration, write_json
from ide_transformer.training import load_model


# Shares of the native field evaluations.
SHARES = 0.9, 0.75, 0.5

Rows = list[dict[str, Any]]


@checked
def study_shortening(
    path: str,
    file: Path,
    *,
    methods: Sequence[str] = tuple(METHODS),
    draws: PositiveInt = 3,
    calibration: PositiveInt = 128,
    held_out: PositiveInt = 128,
    trust: bool = False,
    text: str | None = None,
) -> Report:
    """Measures methods that make the run or checkpoint in `path` shorter.

    Each method chooses and fits on `calibration` samples, of which each draw has others, and is
    measured on `held_out` samples, the same for all. It gets the largest number of layers that
    costs at most 90, 75 and 50 % of the native field evaluations. Rows are written into the
    JSON `file` as they come; a second call goes on where the first ended.

    **Arguments:** `methods`, names of `METHODS`; `text`, see `make_problem`.

    **Raises:** `InputError` for unknown methods, and for a file of another study.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"methods={unknown}: give some of {', '.join(METHODS)}.")
    loaded = load_model(path, trust=trust)
    model = loaded.model.ordinary
    numbers = budgets(model.layers)
    if not numbers:
        raise InputError(f"{path}: its model has one layer, so none can be left out.")
    say = Terminal().print
    problem = make_problem(loaded, calibration, held_out, text=text)
    about: dict[str, Any] = {"model": Path(path).name, "loss": problem.loss}
    about |= {"calibration": calibration, "held_out": held_out}
    if text is not None:
        about["text"] = fingerprint(text)
    rows = _known_rows(file, about)
    known = {(row["method"], row["draw"], row["layers"]) for row in rows}
    for draw in range(draws):
        wanted = [
            name for name in methods if any((name, draw, n) not in known for n in numbers)
        ]
        if not wanted:
            continue
        if draw:
            problem = make_problem(loaded, calibration, held_out, draw, text)
        judge = _judge(model, problem)
        if not rows:
            native = {"method": "native", "draw": None, "layers": model.layers}
            rows.append(native | {"budgets": ""} | judge(model))
        for name in wanted:
            began = time.monotonic()
            try:
                for found in METHODS[name](Given(model, problem, draw), list(numbers)):
                    if (name, draw, found.layers) in known:
                        continue
                    row = {"method": name, "draw": draw, "layers": found.layers}
                    row |= {"budgets": numbers[found.layers], "steps": found.steps}
                    rows.append(row | judge(found.model))
            except InputError as error:
                say(f"{name}: {error}")
                continue
            write_json(file, {"about": about, "rows": rows})
            say(f"draw {draw}, {name}: {duration(time.monotonic() - began)}")
    return summary(about, rows)


def budgets(layers: int) -> dict[int, str]:
    """For each number of layers to keep, the largest first, the shares of the native
    evaluations that allow no more."""
    found: dict[int, list[str]] = {}
    for share in SHARES:
        number = math.floor(share * layers + 1e-9)
        if 0 < number < layers:
            found.setdefault(number, []).append(f"{share:.0%}")
    return {number: ", ".join(shares) for number, shares in found.items()}


def summary(about: dict[str, Any], rows: Rows) -> Report:
    """A row for each method and number of layers, means over draws: its loss, the change to the
    native loss, and the difference to the best published method with as many layers. Both are
    paired over the samples measured on; `spread` is the standard deviation over draws."""
    native = np.array(rows[0]["losses"], float)
    groups: dict[tuple[int, str], Rows] = {}
    for row in rows[1:]:
        groups.setdefault((row["layers"], row["method"]), []).append(row)
    # `[draws, samples]`.
    losses = {
        key: np.array([row["losses"] for row in own], float) for key, own in groups.items()
    }
    means = {key: np.mean(each, axis=0) for key, each in losses.items()}
    table: Rows = []
    for layers, name in sorted(groups, key=lambda key: (-key[0], _mean(means[key]))):
        mean = means[layers, name]
        of_draws = np.mean(losses[layers, name], axis=1)
        own = groups[layers, name]
        rivals = [means[key] for key in groups if key[0] == layers and key[1] in PUBLISHED]
        best = min(rivals, key=_mean, default=None)
        behind = None if best is None else mean - best
        table.append(
            {
                "budgets": own[0]["budgets"],
                "field_evaluations": own[0]["field_evaluations"],
                "method": name,
                "draws": len(own),
                "loss": float(np.mean(mean)),
                "change": float(np.mean(mean - native)),
                "uncertainty": standard_error(mean - native),
                "spread": float(np.std(of_draws, ddof=1)) if len(own) > 1 else None,
                "difference": None if behind is None else float(np.mean(behind)),
                "its_uncertainty": None if behind is None else standard_error(behind),
                "error": float(np.mean([row["error"] for row in own])),
            }
        )
        if "cooled" in rows[0]:
            cooled = np.mean([np.array(row["cooled"], float) for row in own], axis=0)
            change = cooled - np.array(rows[0]["cooled"], float)
            table[-1]["cooled_change"] = float(np.mean(change))
            table[-1]["cooled_uncertainty"] = standard_error(change)
    return Report(
        f"shorter {about['model']}",
        f"Methods that make {about['model']} shorter, chosen and fitted on "
        f"{about['calibration']} samples and measured on {about['held_out']} others. The loss "
        f"is {about['loss']}, natively {np.mean(native):.4f}; change is to that, and the next "
        "difference to the best published method of the same cost. ± are standard errors over "
        "samples, of means over draws. Only sleb reads targets of calibration samples. Cooled: "
        "the outputs of both divided by a temperature each, fitted to calibration targets.",
        table,
        {
            "field_evaluations": "evaluations",
            "uncertainty": "±",
            "spread": "spread of draws",
            "difference": "to the best published",
            "its_uncertainty": "±",
            "error": "relative error",
            "cooled_change": "change when cooled",
            "cooled_uncertainty": "±",
        },
    )


def _mean(losses: np.ndarray) -> float:
    """The mean; infinity if the solve failed."""
    return float(np.nan_to_num(np.mean(losses), nan=np.inf))


def _judge(model: Model, problem: Problem) -> Callable[[Model], dict[str, Any]]:
    """From a shorter model to its figures on the samples measured on."""
    target = native_target(model, problem.held_out, problem.read)
    data = Data(
        problem.held_out,
        problem.losses,
        error=lambda u1, outputs: target.output_error(model, outputs),
    )
    of_calibration = problem.calibration_losses

    @eqx.filter_jit
    def score(outputs: Array, temperature: Array) -> Array:
        assert of_calibration is not None
        return jnp.mean(of_calibration(outputs / temperature))

    def judge(shorter: Model) -> dict[str, Any]:
        found = measure(shorter, data)
        row = {
            "field_evaluations": found.evaluations,
            "loss": found.loss,
            "error": found.error,
            "losses": _rounded(found.losses),
        }
        if problem.read is None or of_calibration is None:
            return row
        calibration = compiled_outputs(shorter, problem.calibration)
        scores = [float(score(calibration, jnp.asarray(t))) for t in TEMPERATURES]
        temperature = best_temperature(scores)
        cooled = problem.losses(shorter.outputs(found.u1, problem.held_out) / temperature)
        return row | {"temperature": temperature, "cooled": _rounded(np.asarray(cooled))}

    return judge


def _rounded(losses: np.ndarray) -> list[float]:
    return [round(float(x), 6) for x in losses]


def _known_rows(file: Path, about: dict[str, Any]) -> Rows:
    if not file.exists():
        return []
    known = json.loads(file.read_text(encoding="utf-8"))
    if known["about"] != about:
        raise InputError(
            f"{file} has rows for {known['about']}, not {about}; name another file."
        )
    return known["rows"]
