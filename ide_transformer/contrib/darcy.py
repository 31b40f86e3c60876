"""Darcy's equation, learned from published samples in PyTorch files."""

import collections
import dataclasses
import functools as ft
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ide_transformer.arguments import PositiveInt
from ide_transformer.equation import TokenDomain
from ide_transformer.errors import InputError
from ide_transformer.memory import check_bytes
from ide_transformer.models import Field
from ide_transformer.packages import fetch_wheel
from ide_transformer.tasks import (
    AbstractAtPoints,
    Batch,
    Part,
    PointSet,
    WeightRule,
    checked_dataclass,
    checksum_of_all,
    domains,
    in_passes,
    one_number,
)


_FILES = ("darcy_train_16.pt", "darcy_test_16.pt", "darcy_test_32.pt")
# How many of the 1,000 published training samples are for validation, the last ones.
_HELD_OUT = 100
# The number of different subsets of points in training.
_POOL = 64
# Dtypes, by the names of torch's storages.
_DTYPES = dict(Bool="?", Byte="u1", Char="i1", Short="<i2", Int="<i4", Long="<i8")
_DTYPES |= dict(Half="<f2", Float="<f4", Double="<f8")


@checked_dataclass
class Darcy(AbstractAtPoints):
    """The map from permeability a to pressure u in a porous medium,

        -∇·(a ∇u) = 1 in the unit square,   u = 0 at its sides,

    where a has two values. There are 1,000 published samples for training, of which the last
    100 are for validation, and 50 for the test, on 16 by 16 points; the 50 also on 32 by 32.
    Inputs are normalised by mean and deviation of the training samples. Inputs and targets are
    a `Field` at the points `(i/n, j/n)`, so a coarse grid is a part of the finer grid (to 1e-3:
    the first row of the published solutions is 1/1025 from the side).

    Source: Kovachki et al., "Neural operator", 2023, and the package neuraloperator 0.3.0.

    **Arguments:**

    - `path`: a folder with darcy_train_16.pt, darcy_test_16.pt and darcy_test_32.pt; `None`
      downloads the package into the cache.
    - `context`: the points along each axis: 16, 8 for every second point, or 32, which has only
      a test part.
    - `samples`: train on this many of the first samples.
    - `points`: "grid" for all points; with "random" or "clustered" the samples of a batch share
      a random subset.
    - `subset`: the number of points in a subset.
    - `weights`: the weights of a subset in integrals, "quadrature" or "equal". The relative
      error always uses quadrature.
    """

    path: str | Path | None = None
    context: Literal[8, 16, 32] = 16
    samples: PositiveInt = 900
    points: PointSet = "grid"
    subset: PositiveInt = 128
    weights: WeightRule = "quadrature"

    def __post_init__(self):
        published, *tests = _read_samples(self.path)
        most = len(published) - _HELD_OUT
        limits = {"samples": most}
        if self.points != "grid":
            limits["subset"] = self.context**2
        for name, limit in limits.items():
            if (value := getattr(self, name)) > limit:
                raise InputError(f"data.options.{name}={value} must be at most {limit}.")
        training = published[: self.samples]
        self.mean = training[:, 0].mean()
        self.deviation = training[:, 0].std()
        if self.context == 32:
            self.data = {"test": tests[1]}
            return
        self.data = {"training": training, "validation": published[most:], "test": tests[0]}
        if self.context == 8:
            for part, x in self.data.items():
                coarse = x.reshape(-1, 2, 16, 16)[:, :, ::2, ::2]
                self.data[part] = coarse.reshape(-1, 2, 64)

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("test",) if self.context == 32 else ("validation", "test")

    @property
    def sizes(self) -> dict[str, Any]:
        # The pressure has other slopes at opposite sides, so the longest wave is 2.
        return {"points": (self.context,) * 2, "grid": "periodic", "wavelength": 2.0}

    @property
    def tokens_per_sample(self) -> int:
        return self.context**2 if self.points == "grid" else self.subset

    def with_tokens(self, tokens: int | tuple[int, int]) -> "Darcy":
        return dataclasses.replace(self, context=one_number(tokens))

    def fingerprint(self) -> str:
        """A checksum of all samples."""
        return checksum_of_all(self.data)

    def batch(self, step: int, size: int, seed: int) -> Batch:
        samples = self.samples_of("training")[in_passes(step, size, self.samples, seed)]
        subset = int(np.random.default_rng([seed, step]).integers(_POOL))
        return self.functions(samples, (0, seed, subset))

    def samples_of(self, part: str) -> np.ndarray:
        """Coefficients and solutions, `[samples, 2, points]`."""
        if part not in self.data:
            raise InputError(
                f"model.context={self.context}: this grid has a test part only; set "
                "model.context=16 to train, and evaluate with --part test."
            )
        return self.data[part]

    def functions(self, samples: np.ndarray, seed: tuple[int, ...]) -> Batch:
        at, domain, norm_domain = _draw_points(
            self.context, self.points, self.subset, self.weights, seed
        )
        inputs = (samples[:, 0][:, at] - self.mean) / self.deviation
        return Batch(Field(inputs, domain), Field(samples[:, 1][:, at], norm_domain))


@ft.lru_cache(2 * _POOL)
def _draw_points(
    side: int, points: PointSet, subset: int, weights: WeightRule, seed: tuple[int, ...]
) -> tuple[Any, TokenDomain, TokenDomain]:
    """Draws indices of points of a grid, with their domains for the model and for norms.
    "clustered" points have probabilities in proportion to `1/20 + exp(-|x - c|² / 2σ²)`, with
    a random c and σ = 1/5."""
    grid = TokenDomain.periodic((side, side))
    if points == "grid":
        return slice(None), grid, grid
    places = np.asarray(grid.points)
    random = np.random.default_rng(seed)
    probability = np.ones(len(places))
    if points == "clustered":
        distance = np.linalg.norm(places - random.random(2), axis=1)
        probability = 1 / 20 + np.exp(-((distance / 0.2) ** 2) / 2)
    probability /= probability.sum()
    at = np.sort(random.choice(len(places), subset, replace=False, p=probability))
    return at, *domains(places[at], weights, grid.period)


def _read_samples(path: str | Path | None) -> list[np.ndarray]:
    """The coefficients and solutions, `[samples, 2, points]`, of each file."""
    if path is None:
        wheel = fetch_wheel(
            "neuraloperator",
            "0.3.0",
            "483b358f2d9823c2ccb5dd0c1af8d21f879fd103806ad42959ebb975260e6ec4",
            instead=f"set data.path to a folder with {', '.join(_FILES)}",
            contents="samples of Darcy's equation (4.0 MB), the package",
        )
        with zipfile.ZipFile(wheel) as archive:
            contents = [archive.read(f"neuralop/datasets/data/{name}") for name in _FILES]
    else:
        contents = [Path(path, name).read_bytes() for name in _FILES]
    samples = []
    for name, content in zip(_FILES, contents, strict=True):
        arrays = torch_arrays(content, name)
        side = int(name[-5:-3])
        x, y = (np.asarray(arrays.get(key, 0)) for key in ("x", "y"))
        if x.shape != y.shape or x.shape[1:] != (side, side):
            raise InputError(
                f"{name}: got x {x.shape} and y {y.shape}, expected [samples, {side}, {side}]."
            )
        pair = [v.reshape(-1, side**2).astype(np.float32) for v in (x, y)]
        samples.append(np.stack(pair, axis=1))
    return samples


def torch_arrays(content: bytes, name: str) -> dict[str, np.ndarray]:
    """Reads a dictionary of tensors that `torch.save` wrote, without running any code in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_bytes(name, sum(member.file_size for member in archive.infolist()))
            (index,) = (x for x in archive.namelist() if x.endswith("/data.pkl"))
            with archive.open(index) as file:
                arrays = _Reader(file, archive, index.removesuffix("data.pkl")).load()
        if not arrays or not all(isinstance(x, np.ndarray) for x in arrays.values()):
            raise ValueError("it is not a dictionary of tensors")
    except InputError:
        raise
    except Exception as error:  # zipfile and pickle raise many kinds
        raise InputError(
            f"{name} is damaged, or not a file of tensors that torch.save wrote: {error}. "
            "Save the tensors with torch.save({'x': x, 'y': y}, path)."
        ) from None
    return arrays


class _Reader(pickle.Unpickler):
    """Reads tensors only, and rejects everything else in a pickle."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str):
        super().__init__(file)
        self.archive = archive
        self.folder = folder

    def find_class(self, module: str, name: str) -> Any:
        # A storage becomes the harmless name of its dtype.
        allowed = {("torch", f"{kind}Storage"): dtype for kind, dtype in _DTYPES.items()} | {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("collections", "OrderedDict"): collections.OrderedDict,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not a tensor")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, *_ = pid
        return np.frombuffer(self.archive.read(f"{self.folder}data/{key}"), dtype)


def _rebuild_tensor(
    storage: Any, offset: int, shape: tuple, strides: tuple, *_: Any
) -> np.ndarray:
    """A view of a storage. Its bounds are checked, since `as_strided` reads beyond the end."""
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    too_large = 0 not in shape and max(last + 1, math.prod(shape)) > len(storage)
    if too_large or min((offset, *shape, *strides)) < 0:
        raise ValueError(
            f"a tensor of shape {shape} and strides {strides} in a storage of {len(storage)}"
        )
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()
