"""Films of functions over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib import animation
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from ..errors import InputError, naming
from .plots import COLORS, draw_picture


_PER_SECOND = 10


def check_film(path: Path) -> None:
    """Raises `InputError` for a file that is not a film, or whose writer is not installed."""
    suffix = path.suffix.lower()
    if suffix != ".gif" and not (suffix == ".mp4" and animation.FFMpegWriter.isAvailable()):
        raise InputError(f"{path}: a film is a .gif, or an .mp4 if ffmpeg is installed.")


_Functions: TypeAlias = Sequence[np.ndarray]


def animate_fields(
    path: Path, points: _Functions, times: np.ndarray, truth: _Functions, prediction: _Functions
) -> None:
    """Writes a film of several functions, each `[times, tokens]` at its points `[tokens,
    dimension]`: curves of truth and prediction on a line; in the plane a row of pictures of
    truth, prediction and error for each function."""
    check_film(path)
    dimension = points[0].shape[1]
    if dimension > 2:
        raise InputError(f"{path}: films need points of dimension 1 or 2, got {dimension}.")
    figure, show = (_on_line if dimension == 1 else _in_plane)(points, truth, prediction)

    def frame(index: int) -> list[Artist]:
        figure.suptitle(f"time {times[index]:.4g}", fontsize="medium")
        return show(index)

    writer = animation.PillowWriter if path.suffix.lower() == ".gif" else animation.FFMpegWriter
    path.parent.mkdir(parents=True, exist_ok=True)
    film = animation.FuncAnimation(figure, frame, frames=len(truth[0]), blit=False)
    with naming(path):
        film.save(path, writer=writer(fps=_PER_SECOND), dpi=100)


def _on_line(points: _Functions, truth: _Functions, prediction: _Functions) -> Any:
    figure = Figure(figsize=(3.6 * len(truth), 3.0), layout="constrained")
    lines = []
    for sample, axes in enumerate(figure.subplots(1, len(truth), squeeze=False)[0]):
        order = np.argsort(points[sample][:, 0])
        x = points[sample][order, 0]
        lowest = truth[sample].min()
        highest = truth[sample].max()
        room = 0.15 * (highest - lowest) or 1.0
        axes.set(xlabel="x", ylim=(lowest - room, highest + room), title=f"sample {sample + 1}")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        for name, functions, color, style in (
            ("truth", truth, COLORS[0], "-"),
            ("prediction", prediction, COLORS[1], "--"),
        ):
            values = functions[sample][:, order]
            (line,) = axes.plot(x, values[0], style, color=color, label=name)
            lines.append((line, values))
        axes.legend(loc="upper right", fontsize="small", frameon=False)

    def show(time: int) -> list[Artist]:
        for line, values in lines:
            line.set_ydata(values[time])
        return [line for line, _ in lines]

    return figure, show


def _in_plane(points: _Functions, truth: _Functions, prediction: _Functions) -> Any:
    figure = Figure(figsize=(8.0, 2.5 * len(truth) + 0.3), layout="constrained")
    grid = figure.subplots(len(truth), 3, squeeze=False)
    pictures = []
    for sample, row in enumerate(grid):
        error = prediction[sample] - truth[sample]
        functions = {"truth": truth[sample], "prediction": prediction[sample], "error": error}
        for axes, (name, values) in zip(row, functions.items(), strict=True):
            is_error = name == "error"
            like = error if is_error else truth[sample]
            picture = draw_picture(axes, points[sample], values[0], like, is_error=is_error)
            axes.set_title("" if sample else name)
            pictures.append((picture, values))
        row[0].set_ylabel(f"sample {sample + 1}")

    def show(time: int) -> list[Artist]:
        for picture, values in pictures:
            picture.set_array(values[time])
        return [picture for picture, _ in pictures]

    return figure, show
