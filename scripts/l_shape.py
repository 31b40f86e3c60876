"""Solves Darcy flow on an L-shaped domain, at different points for each sample.

    -∇·(a ∇u) = 1 in L = [0, 1]² without (1/2, 1]²,   u = 0 on the boundary,

with a = exp g and a random field g of waves. Each sample is solved by quadratic finite elements
on its own triangles with 500 to 1,000 points. The file has the `points`, `weights` (a third of
the area of the triangles around a point), `inputs` (g) and `targets` (u) of all samples, padded
with NaN. It needs scikit-fem.

`--grid 32` writes a second file for networks of convolutions, `FILE-grid.npz`: g and u
interpolated to 32 by 32 midpoints of cells of [0, 1]², 0 outside of L, and whether a cell is in
L as a second channel. `--errors RUN…` prints the relative L2 errors of runs on either file, on
the test samples at the points of the first file, and the errors of the interpolation alone.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from rich.progress import track
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay

from commands import start
from ide_transformer import training
from ide_transformer.commands.options import results_file
from ide_transformer.errors import whole_file
from ide_transformer.packages import require
from ide_transformer.reporting import show_table, write_json
from ide_transformer.tasks import Arrays


EXAMPLES = """\
  python scripts/l_shape.py l_shape.npz --grid 32
  python scripts/l_shape.py l_shape.npz --errors runs/l_shape --json errors.json
"""
_CORNERS = np.array([(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1)])
# The area of L over h², which gives 500 to 1,000 points.
_CELLS = 450, 930
# Waves of g along an axis.
_WAVES = 4


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the .npz file")
    parser.add_argument("--samples", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--grid", type=int, help="points along an axis of the second file")
    parser.add_argument("--errors", type=Path, nargs="+", metavar="RUN", help="trained runs")
    parser.add_argument("--json", type=results_file, help="for the errors")


def run(options: argparse.Namespace) -> None:
    if options.errors:
        show_errors(options)
        return
    if not options.file.is_file():
        write_samples(options)
    if options.grid:
        write_grid(options)


def grid_file(file: Path) -> Path:
    return file.with_name(f"{file.stem}-grid.npz")


def write_samples(options: argparse.Namespace) -> None:
    require("skfem", "physics", "finite elements come from")
    samples = []
    for index in track(range(options.samples), "samples"):
        random = np.random.default_rng([options.seed, index])
        coefficient = random_field(random)
        points, triangles = triangulation(random)
        u = solution(points, triangles, coefficient)
        samples.append((points, weights(points, triangles), coefficient(points.T), u))
    most = max(len(points) for points, *_ in samples)
    names = "points", "weights", "inputs", "targets"
    arrays: dict[str, Any] = {
        name: np.stack([pad(x, most) for x in column]).astype(np.float32)
        for name, column in zip(names, zip(*samples, strict=True), strict=True)
    }
    with whole_file(options.file) as part, part.open("wb") as file:
        np.savez(file, **arrays)
    print(f"{options.samples} samples of up to {most} points: {options.file}")


def write_grid(options: argparse.Namespace) -> None:
    stored = np.load(options.file)
    grid = midpoints(options.grid)
    is_inside = inside(grid, 0)
    inputs = np.zeros((len(stored["points"]), *is_inside.shape, 2), np.float32)
    targets = np.zeros((*inputs.shape[:-1], 1), np.float32)
    inputs[..., 1] = is_inside
    for sample, (points, g, u) in enumerate(
        zip(*(stored[name] for name in ("points", "inputs", "targets")), strict=True)
    ):
        real = np.isfinite(u)
        values = np.stack([g[real], u[real]], axis=1)
        interpolated = LinearNDInterpolator(points[real], values)(grid[is_inside])
        inputs[sample, is_inside, 0], targets[sample, is_inside, 0] = interpolated.T
    with whole_file(grid_file(options.file)) as part, part.open("wb") as file:
        np.savez(file, inputs=inputs, targets=targets)
    print(f"samples on {options.grid} by {options.grid} cells: {grid_file(options.file)}")


def midpoints(size: int) -> np.ndarray:
    x = (np.arange(size) + 0.5) / size
    return np.stack(np.meshgrid(x, x, indexing="ij"), -1)


def show_errors(options: argparse.Namespace) -> None:
    """The mean relative L2 error of each run over the test samples."""
    task = Arrays.build(options.file, test=0.1)
    rows: list[dict[str, Any]] = []
    for path in track(options.errors, "runs"):
        loaded = training.load_model(path)
        run_task: Any = training.evaluation_task(loaded)
        on_grid = "channels" in run_task.sizes
        truth = run_task if on_grid else task
        error: Any = grid_errors if on_grid else point_errors
        predict: Any = eqx.filter_jit(loaded.model)
        summary = training.RunFolder(path).load_summary()
        config = training.RunFolder(path).load_config()
        row = {
            "model": path.name.partition("-")[0],
            "seed": config.training.seed,
            "rate": config.optimizer.learning_rate,
            "error": float(np.mean(error(task, truth, predict))),
            **{key: summary[key] for key in ("parameters", "steps", "seconds")},
        }
        rows.append(row)
        if on_grid and not any(row["model"] == "interpolation" for row in rows):
            floor = float(np.mean(grid_errors(task, truth, None)))
            rows.insert(0, {"model": "interpolation", "error": floor})
    show_table(rows)
    if options.json:
        write_json(options.json, rows)


def test_batches(task: Arrays) -> Iterator[Any]:
    """The test samples in their order, ten at a time."""
    for part in np.split(np.arange(len(task.data["test"][0])), 10):
        yield task.select("test", part)


def point_errors(task: Arrays, _: Any, predict: Any) -> list[float]:
    errors = []
    for batch in test_batches(task):
        outputs = np.asarray(predict(batch.inputs))
        errors += relative_errors(batch, outputs)
    return errors


def relative_errors(batch: Any, outputs: Any) -> list[float]:
    """`‖v - u‖ / ‖u‖` of each sample with the weights of its points."""
    weights = np.asarray(batch.inputs.domain.weights)
    truth = np.asarray(batch.targets.values)
    norms = [np.sqrt((weights * x**2).sum(axis=1)) for x in (outputs - truth, truth)]
    return (norms[0] / norms[1]).tolist()


def grid_errors(task: Arrays, on_grid: Any, predict: Any) -> list[float]:
    """Errors of values on the grid, interpolated to the points of each sample with u = 0 on
    the boundary. Without `predict`: errors of the interpolation alone."""
    errors = []
    for batch, cells in zip(test_batches(task), test_batches(on_grid), strict=True):
        values = np.asarray(cells.targets if predict is None else predict(cells.inputs))
        grid = midpoints(values.shape[1])
        is_inside = inside(grid, 0)
        ring = boundary(values.shape[1])
        nodes = np.concatenate([grid[is_inside], ring])
        nodal_values = np.concatenate(
            [values[:, is_inside, 0].T, np.zeros((len(ring), len(values)))]
        )
        at = LinearNDInterpolator(nodes, nodal_values, fill_value=0.0)
        points = np.asarray(batch.inputs.domain.points)
        outputs = np.stack([at(points[i])[:, i] for i in range(len(points))])
        errors += relative_errors(batch, outputs)
    return errors


def random_field(random: np.random.Generator):
    """`g(x) = Σ_k c_k cos(π k·x + φ_k)`, with normal c_k of variance about 1/|k|³."""
    k = np.stack(np.meshgrid(*[np.arange(_WAVES + 1)] * 2), -1).reshape(-1, 2)[1:]
    c = random.normal(size=len(k)) / np.linalg.norm(k, axis=1) ** 1.5
    phases = random.uniform(0, 2 * np.pi, len(k))

    def field(x: np.ndarray) -> np.ndarray:
        """Values at points `[2, …]`."""
        angles = np.pi * np.tensordot(k, x, 1) + phases.reshape(-1, *[1] * (x.ndim - 1))
        return np.tensordot(c, np.cos(angles), 1)

    return field


def triangulation(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points `[points, 2]` and triangles `[triangles, 3]` of L: a perturbed grid inside, equal
    distances on the boundary."""
    h = math.sqrt(0.75 / random.uniform(*_CELLS))
    grid = np.stack(np.meshgrid(*[np.arange(h / 2, 1, h)] * 2), -1).reshape(-1, 2)
    grid += random.uniform(-0.3, 0.3, grid.shape) * h
    points = np.concatenate([boundary(1 / h), grid[inside(grid, h / 2)]])
    triangles = Delaunay(points).simplices
    # Points on a side of L make triangles without area.
    is_triangle = inside(points[triangles].mean(axis=1), 0) & (areas(points, triangles) > 1e-6)
    return points, triangles[is_triangle]


def boundary(density: float) -> np.ndarray:
    """Points on the boundary at equal distances, `density` along a side of length 1."""
    ends = np.roll(_CORNERS, -1, axis=0)
    sides = []
    for a, b in zip(_CORNERS, ends, strict=True):
        along = np.linspace(0, 1, round(np.abs(b - a).sum() * density), endpoint=False)
        sides.append(a + (b - a) * along[:, None])
    return np.concatenate(sides)


def areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (points[corner] for corner in triangles.T)
    (x, y), (p, q) = (b - a).T, (c - a).T
    return np.abs(x * q - y * p) / 2


def weights(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """The weight of each point in integrals of piecewise linear functions."""
    thirds = np.repeat(areas(points, triangles) / 3, 3)
    return np.bincount(triangles.ravel(), thirds, minlength=len(points))


def inside(x: np.ndarray, margin: float) -> Any:
    """Whether points of `[…, 2]` are in L, at least `margin` from its boundary."""
    square = ((x > margin) & (x < 1 - margin)).all(-1)
    notch = (x > 0.5 - margin).all(-1)
    return square & ~notch


def solution(points: np.ndarray, triangles: np.ndarray, field) -> np.ndarray:
    """u at the points."""
    skfem: Any = import_module("skfem")
    mesh = skfem.MeshTri(*map(np.ascontiguousarray, (points.T, triangles.T)))
    basis = skfem.Basis(mesh, skfem.ElementTriP2())
    stiffness = skfem.BilinearForm(
        lambda u, v, w: np.exp(field(w.x)) * (u.grad * v.grad).sum(0)
    )
    load = skfem.LinearForm(lambda v, w: 1.0 * v)
    system = skfem.condense(
        stiffness.assemble(basis), load.assemble(basis), D=basis.get_dofs().all()
    )
    return skfem.solve(*system)[basis.nodal_dofs[0]]


def pad(x: np.ndarray, length: int) -> np.ndarray:
    return np.pad(x, [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1), constant_values=np.nan)


if __name__ == "__main__":
    start(sys.modules[__name__])
