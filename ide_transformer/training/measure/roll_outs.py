"""Roll-outs: a learned map over a time, applied to its own outputs."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import track

from ...arguments import PositiveInt, checked
from ...errors import InputError
from ...integration import Mesh
from ...memory import check_bytes
from ...models import Timed, compiled_outputs, fed_back
from ...tasks import AbstractTrajectories, Part
from ...tasks.function_data import real_points
from ..folder.loading import LoadedModel
from ..steps.schedule import model_on
from .evaluation import evaluation_task, part_to_measure
from .predictions import draw_functions, operator_model


# A state has blown up if it is this factor larger than the truth.
_BLOWN_UP = 1e3
# The correlation below which a roll-out has lost the truth.
_CORRELATED = 0.8
# Times that differ by this share of them are equal.
_EQUAL = 1e-4


class RollOut(NamedTuple):
    """Roll-outs from held-out states, beside the truth.

    - `times`: since the first state, `[steps + 1]`.
    - `states`: `[steps + 1, samples, *points(, channels)]`, first the held-out ones.
    - `truth`: `[known + 1, samples, *points(, channels)]`, as far as it is known.
    - `points`: `[tokens, dimension]`, or for each sample `[samples, tokens, dimension]`, whose
      padding repeats the first point and has the state 0.
    - `shares`: quadrature weights, `[tokens]` or `[samples, tokens]`; each sample has sum 1.
    - `grid`: the number of points along each axis of a torus; `None` for other points.
    """

    times: Float[np.ndarray, " times"]
    states: Float[np.ndarray, "times samples ..."]
    truth: Float[np.ndarray, "known samples ..."]
    points: Float[np.ndarray, "*samples tokens dimension"]
    shares: Float[np.ndarray, "*samples tokens"]
    grid: tuple[int, ...] | None

    @property
    def blown_up(self) -> dict[int, int]:
        """The samples that blow up, and the step at which each does: numbers that are not
        finite, or a norm 1000 times the largest of the truth."""
        norms = np.stack([self._norms(u) for u in self.states])
        largest = np.max([self._norms(u) for u in self.truth], axis=0)
        over = ~(norms <= _BLOWN_UP * largest)
        return {int(i): int(np.argmax(over[:, i])) for i in np.flatnonzero(over.any(axis=0))}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The errors at each time at which the truth is known. A row has

        - `time`: since the first state.
        - `error`: the nRMSE `‖u - v‖ / ‖v‖` of states u and truth v, the mean over samples.
        - `geometric_mean`: of the errors up to this time.
        - `correlation`: of u and v over points and channels, the mean over samples.
        - `spectrum`: on a torus, the relative error of the energy of the waves,
          `Σ_k |E_k - E'_k| / Σ_k E'_k`, where `E_k` is the mean over samples of `|û_k|²`. In a
          chaotic flow, where states drift apart, it says whether u still looks like a state.
        - `unchanged`: the error of a state that does not move.
        - `samples`: those that have not blown up. Only they count.
        """
        ends = self.blown_up
        rows = []
        logarithms = []
        for step, v in enumerate(self.truth[1:], 1):
            u = self.states[step]
            finite = [i for i in range(len(v)) if step < ends.get(i, step + 1)]
            row: dict[str, Any] = {"time": float(self.times[step])}
            if finite:
                sizes = self._norms(v)[finite]
                error = float(np.mean(self._norms(u - v)[finite] / sizes))
                logarithms.append(np.log(max(error, np.finfo(float).tiny)))
                row["error"] = error
                row["geometric_mean"] = float(np.exp(np.mean(logarithms)))
                row["correlation"] = float(np.mean(self._correlations(u, v)[finite]))
                if self.grid is not None:
                    row["spectrum"] = _spectral_error(u[finite], v[finite], self.grid)
                changes = self._norms(self.truth[0] - v)[finite]
                row["unchanged"] = float(np.mean(changes / sizes))
            rows.append({**row, "samples": len(finite)})
        return rows

    @property
    def correlation_time(self) -> float | None:
        """The first time at which the correlation is below 0.8; `None` if it never is."""
        lost = (x["time"] for x in self.rows if x.get("correlation", 0.0) < _CORRELATED)
        return next(lost, None)

    def _flat(self, u: np.ndarray) -> Float[np.ndarray, "samples tokens channels"]:
        return u.reshape(len(u), self.points.shape[-2], -1).astype(float)

    def _means(self, x: np.ndarray) -> Float[np.ndarray, "samples channels"]:
        return np.einsum("npc,np->nc", x, np.broadcast_to(self.shares, x.shape[:2]))

    @np.errstate(over="ignore", invalid="ignore")
    def _norms(self, u: np.ndarray) -> Float[np.ndarray, " samples"]:
        return np.sqrt(self._means(self._flat(u) ** 2).sum(axis=1))

    @np.errstate(over="ignore", invalid="ignore")
    def _correlations(self, u: np.ndarray, v: np.ndarray) -> Float[np.ndarray, " samples"]:
        u, v = (x - self._means(x)[:, None] for x in (self._flat(u), self._flat(v)))
        sizes = self._norms(u) * self._norms(v)
        return self._means(u * v).sum(axis=1) / np.where(sizes > 0, sizes, 1)

    @property
    def states_to_draw(self) -> np.ndarray:
        """The states while the truth is known, cut off far outside its range."""
        most = 3 * float(np.max(np.abs(self.truth)))
        return np.nan_to_num(np.clip(self.states[: len(self.truth)], -most, most), nan=most)

    def draw(self, path: str | Path, samples: int = 3) -> None:
        """Draws truth, prediction and error: on a line over time, else at the last time."""
        if self.points.shape[-1] > 1:
            last = self.truth[-1], self.states_to_draw[-1]
            draw_functions(path, self.points, samples, *last, input=self.truth[0])
            return
        x = self.points[..., None, :, 0]
        down = np.linspace(0.0, np.ptp(x), len(self.truth))[:, None]  # a square picture
        plane = np.stack(np.broadcast_arrays(down, x), -1)
        if plane.ndim > 3:
            is_real = real_points(self.points)[:, None, :, None]
            plane = np.where(is_real, plane, plane[:, :1, :1])
        over_time = (np.moveaxis(x, 1, 0) for x in (self.truth, self.states_to_draw))
        points = plane.reshape(*plane.shape[:-3], -1, 2)
        draw_functions(path, points, samples, *over_time, axes=("time", "x"))

    def animate(self, path: str | Path, samples: int = 2) -> None:
        """Draws truth and prediction of the first samples as a film, a `.gif`, or an `.mp4` if
        ffmpeg is installed; in the plane the error too. Of several channels it is the first."""
        from ...figures.animation import animate_fields

        points = []
        truth = []
        states = []
        for sample in range(min(samples, self.truth.shape[1])):
            of_sample = self.points
            is_real = np.ones(of_sample.shape[-2], bool)
            if of_sample.ndim > 2:
                is_real = real_points(of_sample)[sample]
                of_sample = of_sample[sample]
            points.append(of_sample[is_real])
            for fields, x in ((truth, self.truth), (states, self.states_to_draw)):
                fields.append(x[:, sample].reshape(len(x), len(is_real), -1)[:, is_real, 0])
        animate_fields(Path(path), points, self.times, truth, states)


@checked
def roll_out(
    loaded: LoadedModel,
    steps: PositiveInt = 8,
    samples: PositiveInt = 8,
    *,
    stride: PositiveInt = 1,
    part: Part | None = None,
    mesh: Mesh = Mesh(),
) -> RollOut:
    """Applies a learned map over a time to its own outputs, from the first held-out states.

    **Arguments:**

    - `steps`: how often the map is applied. Where the truth ends earlier, the states go on.
    - `samples`: the most trajectories.
    - `stride`: each step spans this number of times of the data.
    - `part`: default "test" if there is one.
    - `mesh`: the mesh on which the model is solved, for example with other points.

    **Raises:** `InputError` for a run that has learned no trajectories.
    """
    space = operator_model(loaded).inputs
    model = model_on(loaded.measured, mesh)
    task = evaluation_task(loaded, None, mesh.tokens)
    if not isinstance(task, AbstractTrajectories):
        raise InputError(
            f"{loaded.path}: {type(task).__name__} has no trajectories; pass a run of "
            "data.name=trajectories or navier_stokes."
        )
    part = task.parts[-1] if part is None else part_to_measure(task, part)
    samples = min(samples, len(task.data[part][1]))
    truth = task.trajectory(steps * stride, samples, part)[::stride].astype(np.float32)
    if len(truth) < 2:
        num_times = task.data[part][1].shape[1]
        raise InputError(f"stride={stride}: use fewer than the {num_times} times.")
    check_bytes(f"steps={steps}", (steps + 1) * truth[0].nbytes)
    times = task.times_up_to(steps * stride, part)[::stride]
    domain = task.domain_of(part, np.arange(samples))
    inputs = task.inputs(truth[0], task.constant(samples, part), domain)
    axes = truth.shape[2 : 2 + task.axes]
    if domain is None:
        domain = space.points_of(axes)
    points = np.asarray(domain.points)
    is_real = np.asarray(True)
    if points.ndim > 2:
        is_real = np.expand_dims(real_points(points), tuple(range(2, truth[0].ndim)))
    states = [truth[0]]
    console = Console(stderr=True)
    durations = np.diff(times).tolist()
    for duration in track(durations, "rolling out", console=console, transient=True):
        is_usual = abs(duration - space.duration) <= _EQUAL * space.duration
        timed = inputs if is_usual else Timed(inputs, np.float32(duration))
        outputs = compiled_outputs(model, timed)
        inputs = fed_back(inputs, outputs)
        states.append(np.where(is_real, np.asarray(outputs).reshape(truth[0].shape), 0))
    return RollOut(
        times - times[0],
        np.stack(states),
        truth,
        points,
        np.asarray(domain.shares, float),
        axes if task.grid == "periodic" and not task.scattered else None,
    )


def _spectral_error(u: np.ndarray, v: np.ndarray, grid: tuple[int, ...]) -> float:
    axes = tuple(range(1, 1 + len(grid)))
    grids = (x.reshape(len(x), *grid, -1) for x in (u, v))
    energy, true = (np.mean(np.abs(np.fft.fftn(x, axes=axes)) ** 2, 0) for x in grids)
    return float(np.sum(np.abs(energy - true)) / np.sum(true))
