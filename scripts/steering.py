"""Steers trained models to outputs that are drawn at random, and compares the energies: of
pushes at all depths, of the best push in a single layer, and of what a general optimiser finds,
L-BFGS on an augmented Lagrangian from a push of zero.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize

from commands import start
from ide_transformer import InputError, dynamics, load_model
from ide_transformer.dynamics.march import March
from ide_transformer.figures.plots import literal, save_figure
from ide_transformer.reporting import Terminal, show_table, write_json
from ide_transformer.studies.depth_problem import make_problem


# How near the log-odds have to come.
NEAR = 0.02
EXAMPLES = """\
  python scripts/steering.py glassllm runs/digits --out steering
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", help="runs, checkpoints or packages")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--samples", type=int, default=64, help="inputs (default: 64)")
    parser.add_argument("--tokens", type=int, default=16, help="of texts (default: 16)")
    parser.add_argument(
        "--probability", type=float, default=0.9, help="of the output (default: 0.9)"
    )
    parser.add_argument("--iterations", type=int, default=40, help="of Gauss–Newton")
    parser.add_argument(
        "--optimised",
        type=int,
        default=8,
        help="so many of the inputs that are reached by the optimiser too",
    )


def run(options: argparse.Namespace) -> None:
    console, rows = Terminal(), []
    for path in options.models:
        console.print(path, markup=False)
        row, share = steered(path, options)
        rows.append(row)
        write_json(options.out / "steering.json", rows)
        save_figure(drawn(row["model"], share), options.out / f"steering_{row['model']}.png")
    listed = "above the optimiser", "best layer", "share of each layer"
    show_table([{k: v for k, v in row.items() if k not in listed} for row in rows])


def steered(path: str, options: argparse.Namespace) -> tuple[dict[str, Any], np.ndarray]:
    """A row of energies, and the mean shares of the energy over layers and tokens."""
    if not 0 < options.probability < 1:
        raise InputError(f"--probability {options.probability}: give one between 0 and 1.")
    level = float(np.log(options.probability / (1 - options.probability)))
    loaded = load_model(path)
    model, inputs = loaded.model, make_problem(loaded, 1, options.samples).held_out
    outputs = eqx.filter_eval_shape(model, inputs)
    of_texts = outputs.ndim == 3
    inputs = inputs[:, : options.tokens] if of_texts else inputs

    def scores(outputs):
        return outputs[:, -1] if of_texts else outputs

    native = np.asarray(scores(model(inputs)))
    # Any but the most likely one.
    drawn = np.random.default_rng(0).integers(1, native.shape[1], len(native))
    targets = np.argsort(-native, axis=1)[np.arange(len(native)), drawn]

    def odds(outputs):
        return dynamics.log_odds(scores(outputs), targets)

    found = dynamics.steer(model, inputs, odds, level, iterations=options.iterations)
    single = []
    for layer in range(model.control.num_intervals):
        alone = dynamics.steer(
            model, inputs, odds, level, intervals=[layer], iterations=options.iterations
        )
        there = np.abs(alone.reached - level) < NEAR
        single.append(np.where(there, alone.energy, np.inf))
    there = np.abs(found.reached - level) < NEAR
    if not there.any():
        raise InputError(
            f"{path}: no input comes to a probability of {options.probability}; give more "
            "--iterations, or a lower --probability."
        )
    ratios = np.asarray(found.energy / np.min(single, axis=0))[there]
    above = [
        float(found.energy[i])
        / optimum(model, inputs[i : i + 1], int(targets[i]), scores, float(found.reached[i]))
        - 1
        for i in np.flatnonzero(there)[: options.optimised]
    ]
    density = np.asarray(jnp.sum(found.pushes**2, axis=-1))
    share = (density / density.sum(axis=(0, 2), keepdims=True))[:, there].mean(axis=1)
    row = {
        "model": Path(path).name,
        "inputs": len(native),
        "reached": int(there.sum()),
        "layers": len(single),
        **{f"ratio, {q} %": float(np.percentile(ratios, q)) for q in (5, 50, 95)},
        "at most a third": float(np.mean(ratios <= 1 / 3)),
        "above the optimiser": above,
        "best layer": np.bincount(np.argmin(single, axis=0), minlength=len(single)).tolist(),
        "share of each layer": share.sum(axis=1).tolist(),
    }
    return row, share


def optimum(model: Any, inputs: Any, target: int, scores: Any, level: float) -> float:
    """The least energy that L-BFGS finds."""
    march = March.of("steer", model, inputs)
    h, zeros = march.equation.control.interval_length, march.no_pushes

    @jax.jit
    @jax.value_and_grad
    def lagrangian(v, multiplier, penalty):
        off, energy = gap_and_energy(v)
        return 0.5 * energy + multiplier * off + 0.5 * penalty * off**2

    @jax.jit
    def gap_and_energy(v):
        pushes = v.reshape(zeros[1:].shape).astype(zeros.dtype)
        states = march.states(zeros.at[1:].set(h * pushes))
        off = dynamics.log_odds(scores(model.outputs(states[-1])), target)[0] - level
        return off, h * jnp.sum(pushes**2)

    def value(v, *given):
        found, slope = lagrangian(v, *given)
        return float(found), np.asarray(slope, float)

    v, multiplier, penalty = np.zeros(zeros[1:].size), 0.0, 1.0
    for _ in range(8):
        v = minimize(value, v, (multiplier, penalty), "L-BFGS-B", jac=True).x
        off, energy = map(float, gap_and_energy(v))
        multiplier, penalty = multiplier + penalty * off, 3 * penalty
        if abs(off) < 1e-3:
            break
    return energy


def drawn(title: str, share: np.ndarray) -> Figure:
    """The mean shares of the energy over layers and tokens."""
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, aspect="auto", cmap="viridis", vmin=0)
    axes.set(title=literal(title), xlabel="token", ylabel="layer", yticks=range(len(share)))
    figure.colorbar(image, ax=axes, label="share of the energy")
    return figure


if __name__ == "__main__":
    start(sys.modules[__name__])
