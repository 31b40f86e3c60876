"""Solves Darcy flow on an L-shaped domain, each sample at points of its own.

    -∇·(a ∇u) = 1 in L = [0, 1]² without (1/2, 1]²,   u = 0 on the boundary,

with a = exp g and a random field g of waves. Each sample has its own triangles with 500 to
1,000 points, on which quadratic finite elements solve it. The file has the `points`,
`weights` (a third of the area of the triangles around a point), `inputs` (g) and `targets` (u)
of all samples, padded with NaN. It needs scikit-fem.
"""

import argparse
import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from scipy.spatial import Delaunay

from commands import start
from ide_transformer.errors import whole_file
from ide_transformer.packages import require


EXAMPLES = "  python scripts/l_shape.py l_shape.npz --samples 1000"
_CORNERS = np.array([(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1)])
# The area of L over h², which gives 500 to 1,000 points.
_CELLS = 450, 930
# Waves of g along an axis.
_WAVES = 4


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the .npz file")
    parser.add_argument("--samples", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")


def run(options: argparse.Namespace) -> None:
    require("skfem", "physics", "finite elements are those of")
    found = []
    for number in track(range(options.samples), "samples"):
        random = np.random.default_rng([options.seed, number])
        coefficient = random_field(random)
        points, triangles = triangulation(random)
        u = solution(points, triangles, coefficient)
        found.append((points, weights(points, triangles), coefficient(points.T), u))
    most = max(len(points) for points, *_ in found)
    names = "points", "weights", "inputs", "targets"
    arrays: dict[str, Any] = {
        name: np.stack([padded(x, most) for x in column]).astype(np.float32)
        for name, column in zip(names, zip(*found, strict=True), strict=True)
    }
    with whole_file(options.file) as part, part.open("wb") as file:
        np.savez(file, **arrays)
    print(f"{options.samples} samples of up to {most} points: {options.file}")


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
    """Points `[points, 2]` and triangles `[triangles, 3]` of L: a moved grid inside, equal
    distances on the boundary."""
    h = math.sqrt(0.75 / random.uniform(*_CELLS))
    ends = np.roll(_CORNERS, -1, axis=0)
    sides = zip(_CORNERS, ends, strict=True)
    boundary = [
        a + (b - a) * np.linspace(0, 1, round(np.abs(b - a).sum() / h), endpoint=False)[:, None]
        for a, b in sides
    ]
    grid = np.stack(np.meshgrid(*[np.arange(h / 2, 1, h)] * 2), -1).reshape(-1, 2)
    grid += random.uniform(-0.3, 0.3, grid.shape) * h
    points = np.concatenate([*boundary, grid[inside(grid, h / 2)]])
    triangles = Delaunay(points).simplices
    # Points on a side of L make triangles without area.
    kept = inside(points[triangles].mean(axis=1), 0) & (areas(points, triangles) > 1e-6)
    return points, triangles[kept]


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


def padded(x: np.ndarray, length: int) -> np.ndarray:
    return np.pad(x, [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1), constant_values=np.nan)


if __name__ == "__main__":
    start(sys.modules[__name__])
