"""Compares methods that make trained models shorter, and saves shorter checkpoints."""

import functools as ft
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ide_transformer.arguments import Bound, PositiveInt, checked
from ide_transformer.compare import Data, fingerprint, measure, spread, standard_error
from ide_transformer.contrib.depth_problem import Problem, make_problem
from ide_transformer.contrib.layers import drops, mergers, selections
from ide_transformer.contrib.meshes import coarsenings, native_target
from ide_transformer.contrib.replaced_layers import least_turned, mean_turns, replace_layers
from ide_transformer.contrib.windows import TEMPERATURES, best_temperature
from ide_transformer.dynamics import keep_layers
from ide_transformer.errors import InputError
from ide_transformer.models import Model, compiled_outputs
from ide_transformer.pretrained import save_pretrained
from ide_transformer.reporting import Report, Terminal, duration, write_json
from ide_transformer.training import LoadedModel


# Shares of the native field evaluations.
SHARES = 0.9, 0.75, 0.5

Rows = list[dict[str, Any]]


class Shorter(NamedTuple):
    """A shorter model, and the native layers of each step."""

    model: Model
    steps: str


# Maps a trained model, a problem, sizes (numbers of layers, the largest first) and a seed to a
# model of each size. A method reads only the calibration samples of the problem.
Method = Callable[[Model, Problem, Sequence[int], int], Iterator[Shorter]]


def keep_by_index(choose: Callable[[int, int, int], Sequence[int] | np.ndarray]) -> Method:
    """Keeps the layers `choose(layers, size, seed)` of a model with `layers` layers; a control
    that measures nothing."""

    def method(
        model: Model, problem: Problem, sizes: Sequence[int], seed: int
    ) -> Iterator[Shorter]:
        for size in sizes:
            yield _keep(model, choose(model.layers, size, seed))

    return method


def drop_least_turning(
    model: Model, problem: Problem, sizes: Sequence[int], seed: int
) -> Iterator[Shorter]:
    """ShortGPT: drops the layers that turn the state least. Reference: Men et al., arXiv
    2403.03853."""
    order = np.argsort(-mean_turns(model, 1, problem.calibration), kind="stable")
    for size in sizes:
        yield _keep(model, np.sort(order[:size]))


def drop_greedily(
    model: Model, problem: Problem, sizes: Sequence[int], seed: int
) -> Iterator[Shorter]:
    """SLEB: drops one layer at a time, always the layer whose removal leaves the least loss on
    the calibration samples. Reference: Song et al., arXiv 2402.09025.

    **Raises:** `InputError` for a problem without calibration targets."""
    losses = problem.require_calibration_losses("sleb")

    @eqx.filter_jit
    def loss(shorter: Model) -> Array:
        return jnp.mean(losses(shorter(problem.calibration)))

    layers = list(range(model.layers))
    while len(layers) > min(sizes):
        candidates = [[*layers[:i], *layers[i + 1 :]] for i in range(len(layers))]
        scores = [float(loss(keep_layers(model, candidate))) for candidate in candidates]
        # A march that diverged comes last.
        layers = candidates[int(np.argmin(np.nan_to_num(scores, nan=np.inf)))]
        if len(layers) in sizes:
            yield _keep(model, layers)


def replace_least_turning(
    model: Model, problem: Problem, sizes: Sequence[int], seed: int
) -> Iterator[Shorter]:
    """ReplaceMe, see `replace_layers`."""
    for size in sizes:
        replaced = least_turned(model, model.layers - size, problem.calibration)
        layers = [layer for layer in range(model.layers) if layer not in replaced]
        shorter = replace_layers(model, replaced, problem.calibration)
        yield Shorter(shorter, " ".join(map(str, layers)))


def coarsen_to(
    model: Model, problem: Problem, sizes: Sequence[int], seed: int, **options: Any
) -> Iterator[Shorter]:
    """Leaves out, lengthens and merges steps. For the options see `coarsenings`."""
    for mesh in coarsenings(model, problem.calibration, read=problem.read, **options):
        if len(mesh.steps) in sizes:
            # An interval with operators of layers 2 and 3 is 2/3.
            steps = ("/".join(dict.fromkeys(interval)) for interval in mesh.steps)
            yield Shorter(mesh.model, " ".join(steps))
        if len(mesh.steps) == min(sizes):
            return


def _keep(model: Model, layers: Sequence[int] | np.ndarray) -> Shorter:
    layers = [int(layer) for layer in layers]
    return Shorter(keep_layers(model, layers), " ".join(map(str, layers)))


PUBLISHED: dict[str, Method] = {
    "block_influence": drop_least_turning,
    "sleb": drop_greedily,
    "replace_me": replace_least_turning,
}
METHODS: dict[str, Method] = {
    "last": keep_by_index(lambda layers, size, seed: range(size)),
    # With the first and the last layer. Reference: Sajjad et al., arXiv 2004.03844.
    "even": keep_by_index(lambda layers, size, seed: np.linspace(0, layers - 1, size).round()),
    # A smaller size is a subset of a larger one.
    "random": keep_by_index(
        lambda layers, size, seed: np.sort(
            np.random.default_rng(seed).permutation(layers)[:size]
        )
    ),
    **PUBLISHED,
    "coarsened": coarsen_to,
    "dropped": ft.partial(coarsen_to, moves=(selections, drops), fit=None),
    "merged": ft.partial(coarsen_to, moves=(mergers,), fit=None),
}
MethodName: TypeAlias = Annotated[
    str, Bound(f"one of {', '.join(METHODS)}", lambda name: name in METHODS)
]


@checked
def study_shortening(
    loaded: LoadedModel,
    file: Path,
    *,
    methods: Sequence[MethodName] = tuple(METHODS),
    draws: PositiveInt = 3,
    calibration: PositiveInt = 128,
    held_out: PositiveInt = 128,
    text: str | None = None,
) -> Report:
    """Measures methods that make a model shorter.

    A method gets the largest size (number of layers) that costs at most 90, 75 and 50 % of the
    native field evaluations. Rows are written into `file` as they are measured; a second call
    resumes.

    **Arguments:**

    - `methods`: names of `METHODS`.
    - `draws`: the number of draws of calibration samples.
    - `calibration`: the samples of a draw, by which a method chooses and fits.
    - `held_out`: the samples to measure on, equal for all draws.
    - `text`: see `make_problem`.

    **Raises:** `InputError` for unknown methods, and for a file of another study.
    """
    model = loaded.model.ordinary
    sizes = budgets(model.layers)
    if not sizes:
        raise InputError(
            f"{loaded.path}: its model has a single layer, so none can be left out."
        )
    say = Terminal().print
    problem = make_problem(loaded, calibration, held_out, text=text)
    about: dict[str, Any] = {"model": loaded.path.name, "loss": problem.loss}
    about |= {"calibration": calibration, "held_out": held_out}
    if text is not None:
        about["text"] = fingerprint(text)
    rows = _stored_rows(file, about)
    stored = {(row["method"], row["draw"], row["layers"]) for row in rows}
    for draw in range(draws):
        missing = [
            name for name in methods if any((name, draw, n) not in stored for n in sizes)
        ]
        if not missing:
            continue
        if draw:
            problem = make_problem(loaded, calibration, held_out, draw, text)
        judge = _judge(model, problem)
        if not rows:
            native = {"method": "native", "draw": None, "layers": model.layers}
            rows.append(native | {"budgets": ""} | judge(model))
        for name in missing:
            began = time.monotonic()
            try:
                for shorter, steps in METHODS[name](model, problem, list(sizes), draw):
                    layers = shorter.layers
                    if (name, draw, layers) in stored:
                        continue
                    row = {"method": name, "draw": draw, "layers": layers}
                    row |= {"budgets": sizes[layers], "steps": steps}
                    rows.append(row | judge(shorter))
            except InputError as error:
                say(f"{name}: {error}")
                continue
            write_json(file, {"about": about, "rows": rows})
            say(f"draw {draw}, {name}: {duration(time.monotonic() - began)}")
    return summary(about, rows)


def budgets(layers: int) -> dict[int, str]:
    """The sizes (numbers of layers) to measure, the largest first, each with the shares of the
    native evaluations that allow it. A size is the largest for one of `SHARES`."""
    shares_of: dict[int, list[str]] = {}
    for share in SHARES:
        size = math.floor(share * layers + 1e-9)
        if 0 < size < layers:
            shares_of.setdefault(size, []).append(f"{share:.0%}")
    return {size: ", ".join(shares) for size, shares in shares_of.items()}


def summary(about: dict[str, Any], rows: Rows) -> Report:
    """A row of means over draws for each method and number of layers: the loss, its change from
    the native loss, and its difference to the best published method with as many layers. Both
    are paired over held-out samples. `spread` is the standard deviation over draws."""
    native = np.array(rows[0]["losses"], float)
    groups: dict[tuple[int, str], Rows] = {}
    for row in rows[1:]:
        groups.setdefault((row["layers"], row["method"]), []).append(row)
    # `[draws, samples]`.
    losses = {
        key: np.array([row["losses"] for row in group], float) for key, group in groups.items()
    }
    means = {key: np.mean(each, axis=0) for key, each in losses.items()}
    table: Rows = []
    for layers, name in sorted(groups, key=lambda key: (-key[0], _finite_mean(means[key]))):
        mean = means[layers, name]
        draw_means = np.mean(losses[layers, name], axis=1)
        group = groups[layers, name]
        rivals = [means[key] for key in groups if key[0] == layers and key[1] in PUBLISHED]
        best = min(rivals, key=_finite_mean, default=None)
        difference = None if best is None else mean - best
        table.append(
            {
                "budgets": group[0]["budgets"],
                "field_evaluations": group[0]["field_evaluations"],
                "method": name,
                "draws": len(group),
                "loss": float(np.mean(mean)),
                "change": float(np.mean(mean - native)),
                "uncertainty": standard_error(mean - native),
                "spread": spread(draw_means),
                "difference": None if difference is None else float(np.mean(difference)),
                "its_uncertainty": None if difference is None else standard_error(difference),
                "error": float(np.mean([row["error"] for row in group])),
            }
        )
        if "cooled" in rows[0]:
            cooled = np.mean([np.array(row["cooled"], float) for row in group], axis=0)
            change = cooled - np.array(rows[0]["cooled"], float)
            table[-1]["cooled_change"] = float(np.mean(change))
            table[-1]["cooled_uncertainty"] = standard_error(change)
    return Report(
        f"shorter {about['model']}",
        f"Methods that make {about['model']} shorter, chosen and fitted on "
        f"{about['calibration']} samples and measured on {about['held_out']} others. The loss "
        f"is {about['loss']}. Natively it is {np.mean(native):.4f}, from which change is "
        "counted. ± are standard errors over samples of means over draws. Only sleb reads "
        "targets of calibration samples. Cooled: the outputs of the shorter and of the native "
        "model are each divided by a temperature that is fitted to calibration targets.",
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


def _finite_mean(losses: np.ndarray) -> float:
    """The mean; infinite if the solve failed."""
    return float(np.nan_to_num(np.mean(losses), nan=np.inf))


def _judge(model: Model, problem: Problem) -> Callable[[Model], dict[str, Any]]:
    """A function from a shorter model to its figures on held-out samples."""
    target = native_target(model, problem.held_out, problem.read)
    data = Data(
        problem.held_out,
        problem.losses,
        error=lambda u1, outputs: target.output_error(model, outputs),
    )
    calibration_losses = problem.calibration_losses

    @eqx.filter_jit
    def score(outputs: Array, temperature: Array) -> Array:
        assert calibration_losses is not None
        return jnp.mean(calibration_losses(outputs / temperature))

    def judge(shorter: Model) -> dict[str, Any]:
        measured = measure(shorter, data)
        row = {
            "field_evaluations": measured.evaluations,
            "loss": measured.loss,
            "error": measured.error,
            "losses": _round(measured.losses),
        }
        if problem.read is None or calibration_losses is None:
            return row
        outputs = compiled_outputs(shorter, problem.calibration)
        scores = [float(score(outputs, jnp.asarray(t))) for t in TEMPERATURES]
        temperature = best_temperature(scores)
        cooled = problem.losses(shorter.outputs(measured.u1, problem.held_out) / temperature)
        return row | {"temperature": temperature, "cooled": _round(np.asarray(cooled))}

    return judge


def _round(losses: np.ndarray) -> list[float]:
    return [round(float(x), 6) for x in losses]


def _stored_rows(file: Path, about: dict[str, Any]) -> Rows:
    if not file.exists():
        return []
    stored = json.loads(file.read_text(encoding="utf-8"))
    if stored["about"] != about:
        raise InputError(
            f"{file} has rows for {stored['about']}, not {about}; pass another file."
        )
    return stored["rows"]


@checked
def save_shorter(
    loaded: LoadedModel,
    folder: Path,
    *,
    layers: PositiveInt | None = None,
    method: MethodName = "coarsened",
    calibration: PositiveInt = 128,
    text: str | None = None,
) -> str:
    """Saves a model with fewer layers, in the layout of its checkpoint, or of GPT-2, Llama or
    ViT. Returns a sentence on the result.

    **Arguments:**

    - `folder`: a new folder, or a new file for glassllm.
    - `layers`: the number of layers to save. Default: one less than the model has.
    - `method`: a name of `METHODS`. "coarsened" leaves layers out, lengthens or merges them,
      and fits a step size for each feature, see `coarsen`.
    - `calibration`: the number of samples to choose and fit by.
    - `text`: the text of these samples, for a language model.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} exists already; pass a new name.")
    model = loaded.model.ordinary
    size = layers or model.layers - 1
    if not 0 < size < model.layers:
        raise InputError(f"{loaded.path} has {model.layers} layers; save fewer, not {size}.")
    problem = make_problem(loaded, calibration, held_out=1, text=text)
    shorter, _ = next(METHODS[method](model, problem, [size], 0))
    error = native_target(model, problem.calibration, problem.read).error(shorter)
    _save(shorter, loaded, folder)
    return (
        f"{folder}: {size} of {model.layers} layers, {method}, relative error {error:.3f} on "
        f"{calibration} samples. Load it with ide_transformer.load_pretrained"
        f"({str(folder)!r}) or the original library."
    )


def _save(model: Model, loaded: LoadedModel, folder: Path) -> None:
    if loaded.run is None or loaded.config is None:
        save_pretrained(model, folder, like=loaded.path)
        return
    source = loaded.config.model.pretrained
    save_pretrained(model, folder, like=source)
    tokenizer = loaded.run.load_tokenizer()
    library = None if tokenizer is None else tokenizer.for_others()
    if source is None and library is not None:
        library.save(str(folder / "tokenizer.json"))
