"""Flows of partial differential equations on circles and tori, solved by exponax and cached."""

import abc
import dataclasses
import hashlib
import math
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import InputError, naming
from ..packages import cache_folder


# Samples that are solved at once.
_CHUNK = 256
# Samples that are solved again with half the step and twice the points, and the largest
# relative difference that they may have.
_VERIFIED, _TOLERANCE = 16, 1e-3


class Functions(NamedTuple):
    """Pairs of functions on a grid, `before` and `after: [samples, points]`, float32, with an
    axis of points for each dimension."""

    before: np.ndarray
    after: np.ndarray


@dataclasses.dataclass(frozen=True)
class AbstractFlow(abc.ABC):
    """The flow of a partial differential equation for real functions on the circle [0, 1), or
    on a torus of more dimensions: random functions, and what they become after some `time`."""

    dimension: ClassVar[int] = 1
    # The least number of points along each axis on which it is solved.
    points: ClassVar[int] = 512
    # Pairs of functions that one random function gives, from 0 to `time`, from `time` to twice
    # that, …
    pairs: ClassVar[int] = 1
    # The step of the exponential Runge–Kutta scheme of fourth order.
    step: ClassVar[float]
    # The waves of what is drawn: at most so many around the circle.
    waves: ClassVar[int]
    # What to change where the solution is not resolved.
    advice: ClassVar[str]
    time: float

    @abc.abstractmethod
    def stepper(self, points: int, step: float) -> Any:
        """A step of exponax on so many points along each axis."""

    def drawn(self, number: int, points: int, random: np.random.Generator) -> np.ndarray:
        """Random functions of zero mean and variance 1, in float64, with an axis of points for
        each dimension; in one dimension

            u(x) = Σ_{k=1}^{waves} (a_k cos 2πkx + b_k sin 2πkx),   x in [0, 1),

        with a_k, b_k normal and independent, of variance `1 / waves`."""
        a, b = random.normal(size=(2, number, self.waves)) / math.sqrt(self.waves)
        angles = 2 * np.pi * np.outer(np.arange(1, self.waves + 1), np.arange(points) / points)
        return a @ np.cos(angles) + b @ np.sin(angles)


@dataclasses.dataclass(frozen=True)
class BurgersFlow(AbstractFlow):
    """`u_t + (u²/2)_x = ν u_xx` on the circle [0, 1), ν the `viscosity`. Waves become steep
    until viscosity holds them, and fronts of width `4ν / (jump of u)` meet and merge.
    """

    step = 2e-3
    waves = 4
    advice = "Raise the viscosity."
    viscosity: float

    def stepper(self, points: int, step: float) -> Any:
        from exponax.stepper import Burgers

        return Burgers(1, 1.0, points, step, diffusivity=self.viscosity, order=4)


@dataclasses.dataclass(frozen=True)
class NavierStokesFlow(AbstractFlow):
    """The vorticity ω of a flow in the plane,

        ω_t + v·∇ω = ν Δω,   v = (∂_2 ψ, -∂_1 ψ),   Δψ = ω,

    on the torus [0, 1)², ν the `viscosity`. Random eddies turn around and merge, and decay.
    """

    dimension = 2
    points = 64
    pairs = 4
    step = 2.5e-2
    waves = 4
    advice = "Raise the viscosity."
    viscosity: float

    def stepper(self, points: int, step: float) -> Any:
        from exponax.stepper import NavierStokesVorticity

        return NavierStokesVorticity(2, 1.0, points, step, diffusivity=self.viscosity, order=4)

    def drawn(self, number: int, points: int, random: np.random.Generator) -> np.ndarray:
        """Random functions `[number, points, points]`,

            ω(x) = Σ_k (a_k cos 2πk·x + b_k sin 2πk·x),   0 < |k| <= waves,

        one of k and -k each, with a_k, b_k normal and independent."""
        signed = range(-self.waves, self.waves + 1)
        k = np.array([(p, q) for p in signed for q in signed if (p, q) > (0, 0)])
        k = k[np.linalg.norm(k, axis=1) <= self.waves]
        a, b = random.normal(size=(2, number, len(k))) / math.sqrt(len(k))
        x = 2 * np.pi * np.arange(points) / points
        turned = [np.exp(1j * np.outer(n, x)) for n in k.T]
        return np.einsum("nk,ki,kj->nij", a - 1j * b, *turned, optimize=True).real


def solved(
    flow: AbstractFlow, number: int, points: int, seed: int, *, refined: int = 1, times: int = 1
) -> np.ndarray:
    """The functions of `number` samples at 0, `time`, 2 `time`, …, `[times + 1, number,
    points]`, with an axis of points for each dimension, in float64. They are solved on at least
    `flow.points` along each axis; `refined` divides the step and multiplies these points."""
    import exponax

    stride = math.ceil(flow.points / points) * refined
    steps = math.ceil(flow.time / flow.step) * refined
    coarse = (slice(None), *(slice(None, None, stride),) * flow.dimension)
    u = flow.drawn(number, points * stride, np.random.default_rng(seed))
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        march = exponax.repeat(flow.stepper(points * stride, flow.time / steps), steps)
        march, found = jax.jit(jax.vmap(march)), [u[coarse]]
        for _ in range(times):
            u = _in_chunks(march, u)
            found.append(u[coarse])
    return np.stack(found)


def functions(flow: AbstractFlow, sizes: dict[str, int], points: int) -> dict[str, Functions]:
    """Samples of a flow on a grid, by the names of `sizes`, each part with functions of its
    own; solved the first time and then read from the cache, as long as the code that solves
    them stays the same. `InputError` is raised where exponax is needed and not installed, the
    solution is not resolved, or the file in the cache is damaged."""
    kind = type(flow).__module__
    described = repr(
        (kind, flow, flow.step, flow.waves, sizes, points, flow.pairs, _code(flow))
    )
    key = hashlib.sha256(described.encode()).hexdigest()[:16]
    path = cache_folder() / f"{type(flow).__name__}-{key}.npz"
    if not path.exists():
        _write(path, _computed(flow, sizes, points))
    try:
        with np.load(path) as file:
            return {name: Functions(*file[name]) for name in sizes}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is damaged ({error}). Delete it, and it is computed again."
        ) from None


def _code(flow: AbstractFlow) -> list[str]:
    """Checksums of the code that solves a flow, as far as there are files."""
    files = (__file__, getattr(sys.modules[type(flow).__module__], "__file__", None))
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if file]


def _computed(flow: AbstractFlow, sizes: dict[str, int], points: int) -> dict[str, np.ndarray]:
    try:
        import exponax  # noqa: F401
    except ImportError:
        raise InputError(
            f"{flow} is solved by exponax, which is not installed; run: "
            "pip install 'ide_transformer[physics]'."
        ) from None
    verify(flow, points)
    found = {}
    for seed, (name, size) in enumerate(sizes.items()):
        u = solved(flow, size, points, seed, times=flow.pairs).astype(np.float32)
        found[name] = np.stack([x.reshape(-1, *u.shape[2:]) for x in (u[:-1], u[1:])])
    return found


def verify(flow: AbstractFlow, points: int) -> float:
    """The largest relative difference between solutions and those with half the step and
    twice the points; `InputError` where it is above 1e-3: they are not resolved."""
    coarse, fine = (solved(flow, _VERIFIED, points, 0, refined=n)[1] for n in (1, 2))
    off, fine = (x.reshape(_VERIFIED, -1) for x in (coarse - fine, fine))
    error = np.max(np.linalg.norm(off, axis=1) / np.linalg.norm(fine, axis=1))
    if not error <= _TOLERANCE:
        raise InputError(
            f"{flow} is not resolved: half the step and twice the points change it by "
            f"{error:.1e} of its size, more than {_TOLERANCE}. {flow.advice}"
        )
    return float(error)


def _in_chunks(march: Any, u: np.ndarray) -> np.ndarray:
    """The march of all samples; the last chunk is filled up, so that one program serves all."""
    size = min(len(u), _CHUNK)
    filled = np.concatenate([u, u[: -len(u) % size]])
    parts = [march(jnp.asarray(x)[:, None]) for x in filled.reshape(-1, size, *u.shape[1:])]
    return np.concatenate([np.asarray(x)[:, 0] for x in parts])[: len(u)]


def _write(path: Path, arrays: dict[str, Any]) -> None:
    """A process that is killed leaves no half of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        whole = Path(temporary) / path.name
        with naming(path):
            np.savez(whole, **arrays)
        whole.replace(path)
