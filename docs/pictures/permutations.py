"""Draws a picture of the home page: which words are right after which step in depth."""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ide_transformer as ide
from ide_transformer.commands import start
from ide_transformer.figures import save_figure
from ide_transformer.training import evaluation_task, load_model


EXAMPLES = """\
  python scripts/train.py configs/reasoning/permutations.yaml
  python docs/pictures/permutations.py runs/permutations docs/pictures/permutations.png
"""
_LENGTHS = range(1, 25)
_STEPS = range(2, 33, 2)
_SAMPLES = 2048


def draw_words(run: Path, path: Path) -> None:
    """Draws the part of the words of each length whose product a run tells after each number of
    steps."""
    longest = _LENGTHS[-1]
    lengths = f"data.options.held_out_lengths=[1,{longest}]"
    loaded = load_model(run, [lengths, f"model.context={longest + 2}"])
    words = next(evaluation_task(loaded).held_out(_SAMPLES))
    ends = np.sum(words.targets >= 0, axis=1)  # the last letter; before them is the start
    samples = np.arange(len(ends))
    right = np.empty((len(_STEPS), len(_LENGTHS)))
    for row, steps in enumerate(_STEPS):
        outputs = loaded.model.on(ide.Mesh(horizon=steps))(words.inputs).argmax(-1)
        found = np.asarray(outputs == words.targets)[samples, ends]
        right[row] = [found[ends == length].mean() for length in _LENGTHS]
        print(f"{steps} steps: {found.mean():.0%}", flush=True)
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axes = figure.subplots()
    drawn = axes.pcolormesh(_LENGTHS, _STEPS, right, vmin=0.0, vmax=1.0, cmap="viridis")
    axes.axvline(8.5, color="#D55E00", linestyle="--")
    axes.text(8.2, 30, "trained", ha="right", fontsize="small")
    axes.text(8.8, 30, "never seen", ha="left", fontsize="small")
    axes.set(title="Longer words are solved in more steps", xlabel="letters of a word")
    axes.set(ylabel="steps in depth", xticks=_LENGTHS[3::4], yticks=_STEPS[3::4])
    figure.colorbar(drawn, label="part whose product is right")
    save_figure(figure, path)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run of configs/reasoning/permutations.yaml")
    parser.add_argument("picture", type=Path, help="the PNG file")


def run(arguments: argparse.Namespace) -> None:
    draw_words(arguments.run, arguments.picture)


if __name__ == "__main__":
    start(sys.modules[__name__])
