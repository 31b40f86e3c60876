"""Tasks that learn the flows of partial differential equations on a torus, by exponax."""

import abc
import dataclasses
import hashlib
import itertools
import math
import sys
import zipfile
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..arguments import PositiveFloat, PositiveInt, checked
from ..errors import InputError, whole_file
from ..memory import check_bytes
from ..packages import announce, cache_folder, require
from .task import Part
from .trajectories import AbstractTrajectories, Paths


# Samples solved at once.
_CHUNK = 256
# The number of pairs that are solved again with half the step and twice the points, and the
# change that is allowed.
_VERIFIED = 16
_TOLERANCE = 1e-3
# Classes of exponax for velocities without divergence.
_SOLENOIDAL = ("NavierStokesVelocity", "KolmogorovFlowVelocity")


@dataclasses.dataclass(frozen=True)
class AbstractFlow(abc.ABC):
    """The flow of a partial differential equation on the circle [0, 1) or a torus: draws random
    real functions and maps them to their states after some `time`."""

    dimension: ClassVar[int] = 1
    # The least number of points along each axis for the solution.
    points: ClassVar[int] = 512
    # Pairs from one random function: from 0 to `time`, from `time` to 2 `time`, …
    pairs: ClassVar[int] = 1
    # The step of the exponential Runge–Kutta scheme of fourth order.
    step: ClassVar[float]
    # The most waves of a random function around the circle.
    waves: ClassVar[int]
    # What to change if a solution is not resolved, for the error.
    advice: ClassVar[str]
    time: float

    @property
    def channels(self) -> int:
        """The number of unknown functions."""
        return 1

    @abc.abstractmethod
    def stepper(self, points: int, step: float) -> Any:
        """A step of exponax on a grid with `points` along each axis."""

    def draw(self, samples: int, points: int, random: np.random.Generator) -> np.ndarray:
        """Draws functions of mean 0 and variance 1, `[samples, *points(, channels)]`, float64,

            u(x) = Σ_k (a_k cos 2πk·x + b_k sin 2πk·x),   0 < |k| <= waves,

        where k runs over one of each pair ±k, and a_k, b_k are normal and independent with
        equal variances."""
        axes = "xyz"[: self.dimension]
        grid = itertools.product(range(-self.waves, self.waves + 1), repeat=self.dimension)
        k = np.array([n for n in grid if n > (0,) * self.dimension])
        k = k[np.linalg.norm(k, axis=1) <= self.waves]
        a, b = random.normal(size=(2, samples * self.channels, len(k))) / math.sqrt(len(k))
        x = 2 * np.pi * np.arange(points) / points
        waves = [np.exp(1j * np.outer(n, x)) for n in k.T]
        rule = f"nk,{','.join('k' + axis for axis in axes)}->n{axes}"
        u = np.einsum(rule, a - 1j * b, *waves, optimize=True).real
        return _channels_last(u.reshape(samples, self.channels, *u.shape[1:]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExponaxFlow(AbstractFlow):
    """Any equation of exponax on the torus [0, length)^dimension, scaled to [0, 1)^dimension.

    - `equation`, `coefficients`: a class of `exponax.stepper`, such as "Burgers" or
      "reaction.AllenCahn", and its options.
    - `steps`: of the solution in each `time`.

    For the other fields see `AbstractFlow`.
    """

    equation: str
    coefficients: dict[str, Any]
    steps: int
    points: int
    dimension: int = 1
    length: float = 1.0
    pairs: int = 1
    waves: int = 4
    advice: str = "Set more steps or points, or a shorter time."

    @property
    def step(self) -> float:
        return self.time / self.steps

    @property
    def channels(self) -> int:
        return self.stepper(8, self.step).num_channels

    def stepper(self, points: int, step: float) -> Any:
        import exponax

        name = self.equation.removeprefix("reaction.")
        module = exponax.stepper if name == self.equation else exponax.stepper.reaction
        classes = {
            name: x
            for name, x in vars(module).items()
            if isinstance(x, type) and name not in _SOLENOIDAL
        }
        if name not in classes:
            raise InputError(
                f"stepper={self.equation}: use one of {', '.join(classes)} of "
                f"{module.__name__}. Classes for velocities without divergence need "
                "trajectories of your own (data.name=trajectories)."
            )
        try:
            return classes[name](self.dimension, self.length, points, step, **self.coefficients)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"stepper={self.equation}, coefficients={self.coefficients}: {error}"
            ) from None


def solve_random(
    flow: AbstractFlow, samples: int, points: int, seed: int, *, times: int = 1
) -> np.ndarray:
    """Random functions at 0, `time`, 2 `time`, …, `[times + 1, samples, *points(, channels)]`,
    float64."""
    stride = math.ceil(flow.points / points)
    size = samples * flow.channels * (points * stride) ** flow.dimension
    check_bytes(f"times={times}", 8 * (times + 1) * size)
    u = flow.draw(samples, points * stride, np.random.default_rng(seed))
    coarse = (slice(None, None, stride),) * flow.dimension
    return _solve(flow, u, times)[:, :, *coarse]


def _solve(
    flow: AbstractFlow, u: np.ndarray, times: int = 1, refinement: int = 1
) -> np.ndarray:
    """Solves from functions on the grid of the solution, with `refinement` times as many
    steps."""
    import exponax

    steps = math.ceil(flow.time / flow.step) * refinement
    # The last chunk is padded, so that one program serves all.
    samples, points = u.shape[:2]
    size = min(samples, _CHUNK)
    first = _channels_first(u, flow.dimension)
    first = np.concatenate([first, first[: -samples % size]])
    states = [first.reshape(-1, size, *first.shape[1:])]
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        march = exponax.repeat(flow.stepper(points, flow.time / steps), steps)
        march = jax.jit(jax.vmap(march))
        for _ in range(times):
            states.append(np.stack([march(jnp.asarray(x)) for x in states[-1]]))
    return np.stack([_channels_last(x.reshape(-1, *x.shape[2:])[:samples]) for x in states])


def _channels_first(u: np.ndarray, dimension: int) -> np.ndarray:
    """From `[samples, *points(, channels)]` to exponax's `[samples, channels, *points]`."""
    return np.moveaxis(u.reshape(*u.shape[: 1 + dimension], -1), -1, 1)


def _channels_last(u: np.ndarray) -> np.ndarray:
    return u[:, 0] if u.shape[1] == 1 else np.moveaxis(u, 1, -1)


def functions(flow: AbstractFlow, sizes: dict[str, int], points: int) -> dict[str, np.ndarray]:
    """Trajectories of a flow on a grid, `[samples, pairs + 1, *points(, channels)]`, for each
    name in `sizes`. They are cached until the code that solves them changes.

    **Raises:** `InputError` if exponax is needed and not installed, the solution is not
    resolved, or the file in the cache is damaged.
    """
    module = type(flow).__module__
    files = (__file__, getattr(sys.modules[module], "__file__", None))
    code = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if file]
    content = repr((module, flow, flow.step, flow.waves, sizes, points, flow.pairs, code))
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    path = cache_folder() / f"{type(flow).__name__}-{key}.npz"
    if not path.exists():
        announce(f"solving {sum(sizes.values()):,} samples of {type(flow).__name__}", path)
        require("exponax", "physics", f"{flow} is solved by")
        verify(flow, points)
        arrays: dict[str, Any] = {}
        for seed, (name, size) in enumerate(sizes.items()):
            u = solve_random(flow, size, points, seed, times=flow.pairs).astype(np.float32)
            arrays[name] = np.moveaxis(u, 0, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)
    try:
        with np.load(path) as file:
            return {name: file[name] for name in sizes}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is damaged ({error}). Delete it; it is then computed again."
        ) from None


def verify(flow: AbstractFlow, points: int) -> float:
    """The largest relative change of pairs by half the step and twice the points.

    **Raises:** `InputError` if it is above 1e-3.
    """
    import exponax

    points *= math.ceil(flow.points / points)
    path = solve_random(flow, _VERIFIED, points, 0, times=flow.pairs)
    samples = np.arange(_VERIFIED)
    begins = samples * flow.pairs // _VERIFIED
    before = path[begins, samples]
    after = path[begins + 1, samples]
    with jax.enable_x64(True):
        first = jnp.asarray(_channels_first(before, flow.dimension))
        finer = jax.vmap(exponax.map_between_resolutions, (0, None))(first, 2 * points)
    coarse = (slice(None, None, 2),) * flow.dimension
    fine = _solve(flow, _channels_last(np.asarray(finer)), refinement=2)[1][:, *coarse]
    norms = [np.linalg.norm(x.reshape(_VERIFIED, -1), axis=1) for x in (after - fine, fine)]
    error = np.max(norms[0] / norms[1])
    if not error <= _TOLERANCE:
        raise InputError(
            f"{flow} is not resolved: half the step and twice the points change it by "
            f"{error:.1e}, more than {_TOLERANCE}. {flow.advice}"
        )
    return float(error)


class FlowMapTask(AbstractTrajectories):
    """Predict to which function a flow maps a function; see `AbstractTrajectories`.

    `inputs, targets: [samples, context(, channels)]` on a periodic grid; a `Field` in more than
    one dimension. Training, validation and test samples begin with different random functions,
    the same for every run.

    **Arguments:**

    - `flow`: the equation.
    - `context`: the points of the grid along each axis, which are the tokens.
    - `samples`: the number of random functions for training.
    - `held_out_samples`: the number for validation, and for the test.
    - `unrolled`, `pushforward`: see `Trajectories`.
    """

    configurable: ClassVar[bool] = False

    @checked
    def __init__(
        self,
        flow: AbstractFlow,
        context: PositiveInt,
        samples: PositiveInt,
        held_out_samples: PositiveInt,
        unrolled: PositiveInt = 1,
        pushforward: bool = False,
    ):
        self.flow = flow
        self.held_out_samples = held_out_samples
        sizes = {"training": samples, "validation": held_out_samples, "test": held_out_samples}
        states = functions(flow, sizes, context)
        super().__init__(
            {part: Paths(x) for part, x in states.items()},
            flow.time * np.arange(flow.pairs + 1),
            channels=states["training"].ndim > 2 + flow.dimension,
            unrolled=unrolled,
            pushforward=pushforward,
        )

    @property
    def context(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The points of the grid along each axis."""
        return self.points[0]

    @checked
    def trajectory(
        self, times: PositiveInt, samples: PositiveInt, part: Part | None = None
    ) -> np.ndarray:
        """The first functions of a part at 0, `time`, 2 `time`, …, `[times + 1, samples,
        *points(, channels)]`. Each call solves them.

        **Raises:** `InputError` if the part has fewer than `samples` functions.
        """
        size = self.held_out_samples
        if samples > size:
            raise InputError(
                f"samples={samples}: got {size} {part or 'test'} functions; set fewer."
            )
        seed = 1 if part == "validation" else 2
        return solve_random(self.flow, size, self.context, seed, times=times)[:, :samples]


def _viscous_flow(
    equation: str, viscosity: float, time: float, *, step: float, **options: int
) -> ExponaxFlow:
    """The flow of a viscous equation, solved by ETDRK4 in steps of at most `step`."""
    return ExponaxFlow(
        time=time,
        equation=equation,
        coefficients={"diffusivity": viscosity, "order": 4},
        steps=math.ceil(time / step),
        advice="Raise the viscosity.",
        **options,
    )


class Burgers(FlowMapTask):
    """The flow map of the viscous Burgers equation, `u(·, 0) ↦ u(·, time)`,

        u_t + (u²/2)_x = ν u_xx,   x in [0, 1), periodic,

    from random functions of four waves, mean 0 and variance 1. Waves steepen to fronts of width
    `4ν / (jump of u)`, which meet and merge.

    **Arguments:**

    - `viscosity`: ν; `InputError` if 512 points do not resolve the fronts.
    - `time`: by 0.3 a function has lost about half of its size and has one to four fronts.
    - `context`, `samples`, `held_out_samples`: see `FlowMapTask`.
    """

    configurable: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        context: PositiveInt,
        viscosity: PositiveFloat = 1e-2,
        time: PositiveFloat = 0.3,
        samples: PositiveInt = 4096,
        held_out_samples: PositiveInt = 512,
    ) -> FlowMapTask:
        flow = _viscous_flow("Burgers", viscosity, time, step=2e-3, points=512)
        return cls(flow, context, samples, held_out_samples)


class NavierStokes(FlowMapTask):
    """The flow map of the vorticity ω of a flow in the plane, `ω(·, t) ↦ ω(·, t + time)`,

        ω_t + v·∇ω = ν Δω,   v = (∂_2 ψ, -∂_1 ψ),   Δψ = ω,   on the torus [0, 1)²,

    from t = 0, `time`, 2 `time` and 3 `time`, so that a model can be applied to its outputs.
    Random eddies turn, merge and decay. The first time, solving the samples takes minutes.

    **Arguments:**

    - `viscosity`: ν; `InputError` if 64 points along each axis do not resolve the flow.
    - `context`, `samples`, `held_out_samples`: see `FlowMapTask`. Each function gives four
      pairs.
    """

    configurable: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        context: PositiveInt,
        viscosity: PositiveFloat = 1e-3,
        time: PositiveFloat = 1.0,
        samples: PositiveInt = 256,
        held_out_samples: PositiveInt = 32,
    ) -> FlowMapTask:
        flow = _viscous_flow(
            "NavierStokesVorticity",
            viscosity,
            time,
            step=2.5e-2,
            points=64,
            dimension=2,
            pairs=4,
        )
        return cls(flow, context, samples, held_out_samples)


class Exponax(FlowMapTask):
    """The flow map of an equation of exponax, `u(·, t) ↦ u(·, t + time)`, from t = 0, `time`,
    2 `time`, …, for random functions of four waves.

    **Arguments:**

    - `stepper`, `coefficients`: a class in `exponax.stepper`, such as "KortewegDeVries" or
      "reaction.AllenCahn", and its options, such as `{dispersivity: 0.02}`.
    - `dimension`, `length`: of the torus, in the unit of the equation.
    - `time`: from an input to its target.
    - `steps`, `points`: of the solution, in each `time` and along each axis; `InputError` if
      they do not resolve it.
    - `pairs`: the pairs of an input and its target from each random function.
    - `context`, `samples`, `held_out_samples`, `unrolled`, `pushforward`: see `FlowMapTask`.
    """

    configurable: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        context: PositiveInt,
        stepper: str,
        coefficients: dict[str, Any] | None = None,
        dimension: Literal[1, 2, 3] = 1,
        length: PositiveFloat = 1.0,
        time: PositiveFloat = 0.1,
        steps: PositiveInt = 10,
        points: PositiveInt = 256,
        pairs: PositiveInt = 10,
        samples: PositiveInt = 64,
        held_out_samples: PositiveInt = 16,
        unrolled: PositiveInt = 1,
        pushforward: bool = False,
    ) -> FlowMapTask:
        flow = ExponaxFlow(
            time=time,
            equation=stepper,
            coefficients=coefficients or {},
            length=length,
            steps=steps,
            dimension=dimension,
            points=points,
            pairs=pairs,
        )
        return cls(flow, context, samples, held_out_samples, unrolled, pushforward)
