"""Tasks of trajectories: states of a system at several times."""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Shaped

from ..arguments import Fraction, FractionOrAll, PositiveFloat, PositiveInt, checked
from ..equation import PointRule, TokenDomain
from ..errors import InputError
from ..models import OperatorModel, Statistics, Timed
from .files import array_names, find_array, stored_arrays
from .function_data import FunctionData, at_points, build_parts, divide, grid_like
from .leaks import check_windows
from .losses import Batch, PushforwardError, RelativeError, RolloutError
from .named_arrays import parameter_names, read_named_parts
from .task import AbstractDataSet, Part, checksum_of_all


# The relative difference up to which times are equal.
_EQUAL = 1e-4


class Paths(NamedTuple):
    """Trajectories, and parameters and functions that are constant along each of them.

    - `states`: `[samples, times, *points(, channels)]`.
    - `parameters`: `[samples, numbers]`, such as a viscosity; `None` for none.
    - `constant`: functions, `[samples, *points(, channels)]`, such as a coefficient of the
      equation; `None` for none.
    - `points`: `[tokens]` or `[tokens, dimension]`, or `[samples, tokens, dimension]` if they
      differ between trajectories; `None` for a grid, or for the points of training. States at
      points are `[samples, times, tokens(, channels)]`.
    - `weights`: of the points in integrals. Default: the sizes of their cells.
    - `mask`: `[samples, tokens]`, `False` at padding, if points differ between trajectories.
    - `times`: of the states; `None` for the times of training.
    """

    states: Shaped[np.ndarray, "samples times ..."]
    parameters: Shaped[np.ndarray, "_ numbers"] | None = None
    constant: Shaped[np.ndarray, "_ ..."] | None = None
    points: Shaped[np.ndarray, "_ ..."] | None = None
    weights: Shaped[np.ndarray, "_ ..."] | None = None
    mask: Shaped[np.ndarray, "_ tokens"] | None = None
    times: Shaped[np.ndarray, " _"] | None = None


class AbstractTrajectories(AbstractDataSet):
    """Predict the state of a system after a time Δt, `u(·, t) ↦ u(·, t + Δt)`, from pairs of
    states in its trajectories. Outputs can be inputs again, in a roll-out.

    Channels of inputs are the channels of the state, then the parameters, then the constant
    functions. If a model learns several Δt, or predicts another Δt than it learned, inputs are
    `Timed`.

    **Arguments:**

    - `parts`: the trajectories of "training", and of "validation" and "test" unless they are
      drawn from it.
    - `times`: of the states.
    - `fractions`: of the training trajectories, for each part to draw.

    `Trajectories` documents the other arguments.
    """

    configurable: ClassVar[bool] = False
    model = OperatorModel
    loss = RelativeError()

    def __init__(
        self,
        parts: Mapping[str, Paths],
        times: np.ndarray,
        *,
        fractions: Mapping[str, float] = MappingProxyType({}),
        grid: PointRule | None = None,
        channels: bool = False,
        stride: int = 1,
        steps: tuple[int, ...] = (1,),
        unrolled: int = 1,
        pushforward: bool = False,
        normalize: bool = False,
    ):
        training = parts["training"]
        shape = training.states.shape
        points = shape[2 : len(shape) - channels]
        if not points:
            raise InputError(
                f"trajectories are {[*shape]}; pass [samples, times, *points], or with "
                "channels=True [samples, times, *points, channels]."
            )
        # The number of axes of the points in a state.
        self.axes = len(points)
        self.scattered = training.points is not None
        self.points = points if training.points is None else grid_like(training.points)
        self.grid: PointRule = grid or ("midpoint" if self.scattered else "periodic")
        self.unrolled = unrolled
        if unrolled > 1:
            self.loss = PushforwardError() if pushforward else RolloutError()
        spans = {"trajectories": slice(2, 2 + self.axes), "constant": slice(1, 1 + self.axes)}
        arrays = {
            part: {
                "trajectories": paths.states,
                **{x: y for x, y in paths._asdict().items() if x not in ("states", "times")},
            }
            for part, paths in parts.items()
        }
        functions = divide(build_parts(arrays, spans, self.grid), fractions)
        self._times = {}
        self._pairs = {}
        for part, data in functions.items():
            part_times = parts[part].times if part in parts else None
            name = "times" if part_times is None else f"{part}_times"
            num_times = data.columns["trajectories"].shape[1]
            all_times = times if part_times is None else part_times
            self._times[part] = _check_times(name, all_times, num_times)[::stride]
            self._pairs[part] = self._pairs_of(self._times[part], steps)
        self.times = self._times["training"]
        self.duration = float(np.median(np.diff(self.times)) * min(steps))
        self._set(
            {part: _with_channels(data, channels, stride) for part, data in functions.items()}
        )
        self.timed = self._is_timed()
        states = {part: x for part, (_, x, _) in self.data.items()}
        # Shared points have one order, in which a travelling wave is not a copy of itself.
        check_windows(states, any_order=functions["training"].lengths is not None)
        self._units = self._statistics() if normalize else {}

    def _set(self, functions: dict[str, FunctionData]) -> None:
        """Sets the trajectories and their samples, `[samples, 3]`: the trajectory, the index of
        the first state, and the steps to the next one."""
        self.functions = functions
        self.data = {}
        self.domains = {}
        for part, data in functions.items():
            states = data.columns["trajectories"]
            pairs = np.repeat(self._pairs[part], len(data), axis=0)
            trajectories = np.tile(np.arange(len(data)), len(self._pairs[part]))
            samples = np.concatenate([trajectories[:, None], pairs], axis=1)
            self.data[part] = samples, states, data.columns.get("constant")
            if data.lengths is None:
                axes = states.shape[2 : 2 + self.axes]
                is_torus = len(axes) > 1 and self.grid == "periodic" and not self.scattered
                # A model knows other grids.
                self.domains[part] = (
                    TokenDomain.periodic(axes) if is_torus else data.domain(np.arange(0))
                )
            for index, time in enumerate(self._times[part][1:], 1):
                data.check_norms(part, f"states at the time {time:g}", states[:, index])

    def _pairs_of(self, times: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
        """The index of the first state of each pair, and the steps to the next, `[n, 2]`."""
        longest = max(steps) * self.unrolled
        if longest >= len(times):
            raise InputError(
                f"steps={max(steps)}, unrolled={self.unrolled} need {longest + 1} times, got "
                f"{len(times)}; set smaller ones, or a smaller stride."
            )
        spacings = np.diff(times)
        if self.unrolled > 1 and np.ptp(spacings) > _EQUAL * spacings.min():
            raise InputError(
                f"unrolled={self.unrolled}: times are from {spacings.min():g} to "
                f"{spacings.max():g} apart, but a roll-out in the loss needs equal times; drop "
                "it."
            )
        return np.array(
            [
                (begin, step)
                for step in steps
                for begin in range(len(times) - step * self.unrolled)
            ]
        )

    @property
    def sizes(self) -> dict[str, Any]:
        states, constant = self.data["training"][1:]
        sizes: dict[str, Any] = {
            "points": self.points[0] if len(self.points) == 1 else self.points,
            "grid": self.grid,
            "fields": self.scattered,
            "duration": self.duration,
            **self._units,
        }
        if states.ndim > 2 + self.axes:
            further = 0 if constant is None else constant.shape[-1]
            channels = states.shape[-1]
            sizes |= {"channels": channels + further, "output_channels": channels}
        return sizes

    @property
    def tokens_per_sample(self) -> int:
        return self.functions["validation" if self.holds_out_all else "training"].tokens

    def with_tokens(self, tokens: int | tuple[int, ...]) -> "AbstractTrajectories":
        """The states on a coarser grid with `tokens` points along each axis; see
        `FunctionData.coarser`."""
        other = copy.copy(self)
        other._set(
            {part: data.coarser(tokens, self.grid) for part, data in self.functions.items()}
        )
        other.points = other.data["training"][1].shape[2 : 2 + self.axes]
        return other

    @checked
    def for_duration(self, duration: PositiveFloat) -> "AbstractTrajectories":
        """The task for a model that maps inputs over this time unless they are `Timed`: inputs
        are `Timed` if a pair has another Δt."""
        other = copy.copy(self)
        other.duration = duration
        other.timed = other._is_timed()
        return other

    def fingerprint(self) -> str:
        """A checksum of all trajectories, and of their times, points and weights."""
        domains = [(x.points, x.weights) for x in self.functions.values()]
        return checksum_of_all((super().fingerprint(), self._times, domains))

    def lengths(self, part: str) -> np.ndarray | None:
        lengths = self.functions[part].lengths
        return None if lengths is None else lengths[self.data[part][0][:, 0]]

    def domain_of(self, part: str, samples: np.ndarray) -> TokenDomain | None:
        """The points of these trajectories; `None` for the grid of the model."""
        if part in self.domains:
            return self.domains[part]
        return self.functions[part].domain(samples)

    @checked
    def trajectory(
        self, times: PositiveInt, samples: PositiveInt, part: Part | None = None
    ) -> np.ndarray:
        """The first held-out trajectories, `[times + 1, samples, *points(, channels)]`, or all
        their times if they have fewer. `part`: default "test" if there is one.

        **Raises:** `InputError` if the part has fewer than `samples` trajectories.
        """
        part = part or self.parts[-1]
        states = self.data[part][1]
        if samples > len(states):
            raise InputError(f"samples={samples}: got {len(states)} trajectories; set fewer.")
        length = self._longest(samples, part)
        return np.moveaxis(states[:samples, : times + 1, :length], 1, 0)

    def times_up_to(self, number: int, part: Part) -> np.ndarray:
        """The times 0 … `number` of the states, extended by equal steps."""
        times = self._times[part]
        more = times[-1] + (times[-1] - times[-2]) * np.arange(1, number + 1)
        return np.concatenate([times, more])[: number + 1]

    def constant(self, samples: int, part: Part | None = None) -> np.ndarray | None:
        """The input channels of the first trajectories that are not channels of the state,
        `[samples, *points, channels]`."""
        part = part or self.parts[-1]
        constant = self.data[part][2]
        return None if constant is None else constant[:samples, : self._longest(samples, part)]

    def inputs(
        self, states: Any, constant: np.ndarray | None = None, domain: TokenDomain | None = None
    ) -> Any:
        """States `[samples, *points(, channels)]` and `constant` channels as inputs of a model.
        `domain`: their points; default: the points that training states share."""
        if constant is not None:
            states = np.concatenate([states, constant], axis=-1)
        return at_points(states, domain or self.domains.get("training"), self.axes)

    def select(self, part: str, samples: np.ndarray) -> Batch:
        pairs, states, constant = self.data[part]
        rows, begins, steps = pairs[samples].T
        domain = self.domain_of(part, rows)
        if constant is not None:
            constant = constant[rows]
        inputs = self.inputs(states[rows, begins], constant, domain)
        if self.timed:
            inputs = Timed(inputs, self._durations(part, begins, steps).astype(np.float32))
        targets = [
            at_points(states[rows, begins + n * steps], domain, self.axes)
            for n in range(1, self.unrolled + 1)
        ]
        return Batch(inputs, targets if self.unrolled > 1 else targets[0])

    def _durations(self, part: str, begins: np.ndarray, steps: np.ndarray) -> np.ndarray:
        return self._times[part][begins + steps] - self._times[part][begins]

    def _statistics(self) -> dict[str, Statistics]:
        """The statistics of inputs and outputs, from the training part unless it is empty."""
        data = self.functions["training" if len(self.functions["training"]) else "validation"]
        channels = data.columns["trajectories"].ndim > 2 + self.axes
        outputs = data.statistics("trajectories", channels=channels)
        further: Statistics = ()
        if "constant" in data.columns:
            further = data.statistics("constant", channels=True)
        return {"statistics": outputs + further, "output_statistics": outputs}

    def _is_timed(self) -> bool:
        """Whether the Δt of a pair is not `duration`."""
        errors = [
            np.abs(self._durations(part, *pairs.T) - self.duration).max(initial=0)
            for part, pairs in self._pairs.items()
        ]
        return bool(max(errors) > _EQUAL * self.duration)

    def _longest(self, samples: int, part: Part) -> int | None:
        """The number of points to which the first samples of a part are padded."""
        lengths = self.functions[part].lengths
        return None if lengths is None else int(lengths[:samples].max())


class Trajectories(AbstractTrajectories):
    """Predict the state of a system after a time Δt, from trajectories that are arrays; see
    `AbstractTrajectories`. Each trajectory is in one part of the data.

    **Arguments:**

    - `trajectories`: states, `[samples, times, *points(, channels)]`.
    - `times`: increasing, not necessarily by equal steps. Default: 0, 1, 2, ….
    - `points`, `weights`, `mask`, `parameters`, `constant`: see `Paths`.
    - `validation`, `test`: the fraction of the trajectories to hold out at random, the same for
      every run; or the trajectories of the part. `test` 0 makes no test part; `validation` 1
      holds out all.
    - `grid`: see `FunctionInputs`; default: "midpoint" with `points`, else "periodic".
    - `channels`: whether states have a last axis of channels.
    - `stride`: uses every `stride`-th time.
    - `steps`: from the state of an input to its target. With several numbers, or unequal times,
      a model learns several Δt.
    - `unrolled`: the steps of a roll-out in the loss, see `RolloutError`. Above 1, targets are
      the list of states after each step.
    - `pushforward`: whether the gradient of each step ends at its inputs, see
      `PushforwardError`.
    - `normalize`: whether the model computes in standard deviations from the mean of the
      training part, see `statistics`; outside it the data keep their units.

    **Raises:** `InputError` for arrays that do not fit each other, numbers that are not finite,
    states that are zero, too few times, and trajectories of one part that are windows of
    trajectories in another.
    """

    configurable: ClassVar[bool] = True
    may_hold_out_all = True

    @checked
    def __init__(
        self,
        trajectories: Shaped[np.ndarray, "samples times ..."],
        times: Shaped[np.ndarray, " _"] | None = None,
        points: Shaped[np.ndarray, "_ ..."] | None = None,
        weights: Shaped[np.ndarray, "_ ..."] | None = None,
        parameters: Shaped[np.ndarray, "_ numbers"] | None = None,
        constant: Shaped[np.ndarray, "_ ..."] | None = None,
        *,
        mask: Shaped[np.ndarray, "samples tokens"] | None = None,
        validation: FractionOrAll | Paths = 0.1,
        test: Fraction | Paths = 0.0,
        grid: PointRule | None = None,
        channels: bool = False,
        stride: PositiveInt = 1,
        steps: tuple[PositiveInt, ...] = (1,),
        unrolled: PositiveInt = 1,
        pushforward: bool = False,
        normalize: bool = False,
    ):
        self.holds_out_all = validation == 1
        parts = {"training": Paths(trajectories, parameters, constant, points, weights, mask)}
        fractions: dict[str, float] = {}
        for part, x in (("validation", validation), ("test", test)):
            if isinstance(x, Paths):
                parts[part] = x
            else:
                fractions[part] = x
        super().__init__(
            parts,
            np.arange(trajectories.shape[1]) if times is None else times,
            fractions=fractions,
            grid=grid,
            channels=channels,
            stride=stride,
            steps=steps,
            unrolled=unrolled,
            pushforward=pushforward,
            normalize=normalize,
        )

    @classmethod
    def build(
        cls,
        path: str | Path,
        inputs: str | list[str] = "trajectories",
        dimensions: list[str] | None = None,
        parameters: str | list[str] | None = None,
        **options: Any,
    ) -> "Trajectories":
        """Reads arrays by name from a file or folder (how-to/own-data.md): `trajectories`;
        `times`, `points`, `weights`, `mask`, `parameters` and `constant` if they exist; and
        arrays of another part, such as `validation_trajectories` and `test_times`. Padding may
        be NaN in points of each trajectory's own.

        **Arguments:**

        - `inputs`: the name of the trajectories. Several names become channels.
        - `dimensions`: the order of the dimensions in a file that names them.
        - `parameters`: the names of the parameters; default: "parameters", if it exists.
        - `options`: of `Trajectories`.
        """
        roles: dict[str, Any] = {"trajectories": inputs}
        sources = array_names(roles)
        if parameters is not None:
            roles |= {x: x for x in parameter_names(parameters)}
        stored = stored_arrays(path, roles, dimensions)
        name = inputs if isinstance(inputs, str) else "trajectories"
        if find_array(path, stored, name).dimensions[-1:] == ("channels",):
            options.setdefault("channels", True)
        names = {"trajectories": name, **{x: x for x in Paths._fields if x != "states"}}
        optional = names.keys() - {"trajectories"}
        parts = read_named_parts(path, stored, names, optional, parameters, options, sources)
        training = parts.pop("training")
        for part, columns in parts.items():
            options[part] = Paths(columns.pop("trajectories"), **columns)
        return cls(**training, **options)


def _with_channels(data: FunctionData, channels: bool, stride: int) -> FunctionData:
    """The data with every `stride`-th state in float32, and parameters and constant functions
    as the channels of one column `constant`."""
    states = data.columns["trajectories"][:, ::stride].astype(np.float32, copy=False)
    points = states.shape[data.spans["trajectories"]]
    further = []
    if "parameters" in data.columns:
        numbers = data.columns["parameters"]
        shape = (len(numbers), *points, numbers.shape[1])
        numbers = np.expand_dims(numbers, tuple(range(1, 1 + len(points))))
        further.append(np.broadcast_to(numbers, shape))
    if "constant" in data.columns:
        constant = data.columns["constant"]
        further.append(constant if constant.ndim > 1 + len(points) else constant[..., None])
    columns = {"trajectories": states}
    if further:
        columns["trajectories"] = states if channels else states[..., None]
        columns["constant"] = np.concatenate(further, axis=-1, dtype=np.float32)
    spans = {**data.spans, "constant": slice(1, 1 + len(points))}
    return dataclasses.replace(data, columns=columns, spans=spans)


def _check_times(name: str, times: np.ndarray, num_times: int) -> np.ndarray:
    """Checks that times increase, and converts them to double precision: dates to seconds since
    the first."""
    if times.shape == (num_times,) and times.dtype.kind == "M":
        times = (times - times[0]) / np.timedelta64(1, "s")
    are_numbers = times.shape == (num_times,) and times.dtype.kind in "fiu"
    if not are_numbers or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise InputError(
            f"{name} are {times.dtype}{[*times.shape]}; pass {num_times} increasing numbers, "
            "one for each state of a trajectory."
        )
    return times.astype(float)
