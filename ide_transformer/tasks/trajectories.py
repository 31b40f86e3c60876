"""Trajectories: states of a system at several times."""

import copy
import math
import operator as op
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Shaped

from ..arguments import Fraction, FractionOrAll, PositiveFloat, PositiveInt, checked
from ..equation import PointRule, TokenDomain
from ..errors import InputError
from ..models import Field, OperatorModel, Statistics, Timed, statistics
from .files import found, parts_in_file, read_arrays, stored_arrays
from .leaks import check_windows
from .losses import Batch, PushforwardError, RelativeError, RolloutError
from .points import (
    check_norms,
    check_parts,
    coarser,
    coarser_grid,
    domains_at,
    drawn_parts,
    finite_numbers,
    grid_like,
)
from .scattered import domain_of, scattered, with_mask, with_padded_lengths
from .task import AbstractDataSet, Part, checksum_of_all


# The share of a time up to which two times are equal.
_EQUAL = 1e-4


class Paths(NamedTuple):
    """Trajectories, and what is constant along each of them.

    - `states`: `[samples, times, *points(, channels)]`.
    - `parameters`: `[samples, numbers]`, such as a viscosity; `None` for none.
    - `constant`: functions, `[samples, *points(, channels)]`, such as a coefficient of the
      equation; `None` for none.
    - `points`: of each trajectory's own, `[samples, tokens, dimension]`; `None` where all share
      them. States are then `[samples, times, tokens(, channels)]`.
    - `weights`: of these points in integrals, `[samples, tokens]`; default: the sizes of their
      cells.
    - `mask`: `[samples, tokens]`, `False` where points are padding.
    """

    states: Shaped[np.ndarray, "samples times ..."]
    parameters: Shaped[np.ndarray, "_ numbers"] | None = None
    constant: Shaped[np.ndarray, "_ ..."] | None = None
    points: Shaped[np.ndarray, "_ tokens dimension"] | None = None
    weights: Shaped[np.ndarray, "_ tokens"] | None = None
    mask: Shaped[np.ndarray, "_ tokens"] | None = None


class AbstractTrajectories(AbstractDataSet):
    """Predict the state of a system after a time Δt, `u(·, t) ↦ u(·, t + Δt)`, from pairs of
    states in its trajectories. Outputs are inputs again, so that the model can be rolled out.

    Inputs have the channels of the state, then the parameters, the same at all points, then the
    constant functions. Where a model learns several Δt, or is evaluated on another Δt than it
    learned, inputs are `Timed`.

    **Arguments:**

    - `parts`: the trajectories of "training", "validation" and "test". Those at points of their
      own have weights and a mask, and their padding at the end.
    - `times`: of the states.

    For the others see `Trajectories`.
    """

    configurable: ClassVar[bool] = False
    model = OperatorModel
    loss = RelativeError()

    def __init__(
        self,
        parts: Mapping[str, Paths],
        times: np.ndarray,
        *,
        points: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        grid: PointRule | None = None,
        channels: bool = False,
        stride: int = 1,
        steps: tuple[int, ...] = (1,),
        unrolled: int = 1,
        pushforward: bool = False,
        normalize: bool = False,
    ):
        shape = parts["training"].states.shape[1:]
        self.points = shape[1 : len(shape) - channels]
        if not self.points:
            raise InputError(
                f"trajectories are {[len(parts['training'].states), *shape]}; give [samples, "
                "times, *points], or with channels=True [samples, times, *points, channels]."
            )
        self.times = _increasing(times, shape[0])[::stride]
        self.own = _own_points(parts)
        self.scattered = points is not None or self.own is not None
        self.grid: PointRule = grid or ("midpoint" if self.scattered else "periodic")
        self.domains = None if self.own else self._grid_domains()
        if self.own is not None:
            own = self.own["training"][0]
            self.points = grid_like(*own.shape[1:])
            self.period = _period(own, self.grid)
        elif points is not None:
            self.domains, self.points = domains_at(points, weights, self.points, self.grid)
        elif weights is not None:
            raise InputError("weights belong to points; give points too, or drop weights.")
        self.unrolled = unrolled
        if pushforward and unrolled == 1:
            raise InputError("pushforward=True: with one step there is none; give unrolled=2.")
        if unrolled > 1:
            self.loss = PushforwardError() if pushforward else RolloutError()
        pairs = self._pairs(steps)
        spacing = np.median(np.diff(self.times))
        self.duration = float(spacing * min(steps))
        self.data = {}
        for part, paths in parts.items():
            states, constant = _arrays(part, paths, shape, channels=channels)
            number = len(states)
            which = np.tile(np.arange(number), len(pairs))
            begins_and_steps = np.repeat(pairs, number, axis=0)
            learned = np.concatenate([which[:, None], begins_and_steps], axis=1)
            self.data[part] = learned, states[:, ::stride], constant
        self.timed = self._is_timed()
        self._check_norms()
        check_windows({part: states for part, (_, states, _) in self.data.items()})
        self._units = self._statistics() if normalize else {}

    def _pairs(self, steps: tuple[int, ...]) -> np.ndarray:
        """The time at which each pair begins, and the times to the next state, `[pairs, 2]`."""
        number = len(self.times)
        most = max(steps) * self.unrolled
        if most >= number:
            raise InputError(
                f"steps={max(steps)}, unrolled={self.unrolled} need {most + 1} times, and "
                f"there are {number}; give smaller ones, or a smaller stride."
            )
        spacings = np.diff(self.times)
        if self.unrolled > 1 and np.ptp(spacings) > _EQUAL * spacings.min():
            raise InputError(
                f"unrolled={self.unrolled}: times are from {spacings.min():g} to "
                f"{spacings.max():g} apart; a roll-out in the loss needs equal times. Drop it."
            )
        return np.array(
            [(begin, step) for step in steps for begin in range(number - step * self.unrolled)]
        )

    @property
    def sizes(self) -> dict[str, Any]:
        states, constant = self.data["training"][1:]
        found: dict[str, Any] = {
            "points": self.points[0] if len(self.points) == 1 else self.points,
            "grid": self.grid,
            "fields": self.scattered,
            "duration": self.duration,
            **self._units,
        }
        if states.ndim > 2 + self.axes:
            further = 0 if constant is None else constant.shape[-1]
            number = states.shape[-1]
            found |= {"channels": number + further, "output_channels": number}
        return found

    @property
    def axes(self) -> int:
        """The number of axes of the points of a state."""
        return 1 if self.scattered else len(self.points)

    @property
    def tokens_per_sample(self) -> int:
        if self.own is not None:
            return round(self.own["validation" if self.whole else "training"][-1].mean())
        return math.prod(self.data["training"][1].shape[2 : 2 + self.axes])

    def with_tokens(self, tokens: int | tuple[int, ...]) -> "AbstractTrajectories":
        """The states on a coarser grid, with `tokens` points along each axis: a subset of the
        points of a "periodic" grid, means of neighbours on a "midpoint" grid."""
        fewer = coarser_grid(tokens, self.points, None if self.scattered else self.grid)
        other = copy.copy(self)
        other.points = fewer
        other.domains = other._grid_domains()
        other.data = {
            part: (
                learned,
                coarser(states, fewer, self.grid, 2),
                None if constant is None else coarser(constant, fewer, self.grid),
            )
            for part, (learned, states, constant) in self.data.items()
        }
        other._check_norms()
        return other

    @checked
    def for_duration(self, duration: PositiveFloat) -> "AbstractTrajectories":
        """The data for a model that maps plain inputs over this time: inputs are `Timed` if a
        pair has another Δt."""
        other = copy.copy(self)
        other.duration = duration
        other.timed = other._is_timed()
        return other

    def fingerprint(self) -> str:
        """A checksum of all trajectories, and of their times, points and weights."""
        return checksum_of_all((super().fingerprint(), self.times, self.domains, self.own))

    def lengths(self, part: str) -> np.ndarray | None:
        if self.own is None:
            return None
        return self.own[part][-1][self.data[part][0][:, 0]]

    def domains_of(
        self, part: str, samples: np.ndarray
    ) -> tuple[TokenDomain, TokenDomain] | None:
        """The points of inputs and of targets of these trajectories; `None` if the model has
        them."""
        if self.own is None:
            return self.domains
        points, weights, lengths = (x[samples] for x in self.own[part])
        domain = domain_of(points, weights, lengths, self.period)
        return domain, domain

    @checked
    def trajectory(
        self, times: PositiveInt, samples: PositiveInt, part: Part | None = None
    ) -> np.ndarray:
        """The first held-out trajectories, `[times + 1, samples, *points(, channels)]`; fewer
        times if no more are known. `part`: default "test" if there is one.

        **Raises:** `InputError` if `samples` are more than there are.
        """
        part = part or self.parts[-1]
        states = self.data[part][1]
        if samples > len(states):
            raise InputError(f"samples={samples}: there are {len(states)} trajectories.")
        length = self._longest(samples, part)
        return np.moveaxis(states[:samples, : times + 1, :length], 1, 0)

    def times_up_to(self, number: int) -> np.ndarray:
        """The times 0 … `number` of the states; after the last one known, equally spaced."""
        more = self.times[-1] + (self.times[-1] - self.times[-2]) * np.arange(1, number + 1)
        return np.concatenate([self.times, more])[: number + 1]

    def constant(self, samples: int, part: Part | None = None) -> np.ndarray | None:
        """The further input channels of these trajectories, `[samples, *points, channels]`."""
        part = part or self.parts[-1]
        constant = self.data[part][2]
        return None if constant is None else constant[:samples, : self._longest(samples, part)]

    def inputs(
        self, states: Any, constant: np.ndarray | None = None, domain: TokenDomain | None = None
    ) -> Any:
        """States `[samples, *points(, channels)]`, and what is constant, as inputs of a
        model. `domain`: their points; default: those that all share."""
        if constant is not None:
            states = np.concatenate([states, constant], axis=-1)
        if domain is None and self.domains is not None:
            domain = self.domains[0]
        return self._functions(states, domain)

    def chosen(self, part: str, samples: np.ndarray) -> Batch:
        learned, states, constant = self.data[part]
        which, begins, steps = learned[samples].T
        own, of_targets = self.domains_of(part, which) or (None, None)
        inputs = self.inputs(
            states[which, begins], None if constant is None else constant[which], own
        )
        if self.timed:
            durations = self.times[begins + steps] - self.times[begins]
            inputs = Timed(inputs, durations.astype(np.float32))
        targets = [
            self._functions(states[which, begins + n * steps], of_targets)
            for n in range(1, self.unrolled + 1)
        ]
        return Batch(inputs, targets if self.unrolled > 1 else targets[0])

    def _statistics(self) -> dict[str, Statistics]:
        """The units of inputs and outputs, from the training part if there is one."""
        part = "training" if len(self.data["training"][0]) else "validation"
        _, states, constant = self.data[part]
        channels = states.ndim > 2 + self.axes
        if self.own is not None:
            there = self.own[part][1] > 0  # padding has no statistics
            states = np.moveaxis(states, 1, 2)[there]
            constant = None if constant is None else constant[there]
        of_states = statistics(states, channels=channels, name="trajectories")
        further: Statistics = ()
        if constant is not None:
            further = statistics(constant, channels=True, name="parameters and constant")
        return {"statistics": of_states + further, "output_statistics": of_states}

    def _is_timed(self) -> bool:
        """Whether a pair is not `duration` apart."""
        _, begins, steps = self.data["validation"][0].T
        durations = self.times[begins + steps] - self.times[begins]
        return bool(np.any(np.abs(durations - self.duration) > _EQUAL * self.duration))

    def _grid_domains(self) -> tuple[TokenDomain, TokenDomain] | None:
        """The points of inputs and of targets, on a torus; elsewhere the model has its grid."""
        if len(self.points) == 1 or self.grid != "periodic":
            return None
        whole = TokenDomain.periodic(self.points)
        return whole, whole

    def _longest(self, samples: int, part: Part) -> int | None:
        """The number of points to which the first samples are padded."""
        return None if self.own is None else int(self.own[part][-1][:samples].max())

    def _functions(self, values: Any, domain: TokenDomain | None) -> Any:
        if domain is None:
            return values
        channels = values.shape[1 + self.axes :]
        if self.own is not None:
            values = values[:, : domain.num_tokens]
        return Field(values.reshape(len(values), domain.num_tokens, *channels), domain)

    def _check_norms(self) -> None:
        shared = None if self.domains is None else self.domains[1].weights
        for part, (_, states, _) in self.data.items():
            weights = shared if self.own is None else self.own[part][1]
            for number, time in enumerate(self.times[1:], 1):
                check_norms(part, f"states at the time {time:g}", states[:, number], weights)


class Trajectories(AbstractTrajectories):
    """Predict the state of a system after a time Δt, from trajectories that are arrays; see
    `AbstractTrajectories`. A trajectory is wholly in one part of the data.

    **Arguments:**

    - `trajectories`: states, `[samples, times, *points(, channels)]`.
    - `times`: increasing, not necessarily equally spaced. Default: 0, 1, 2, ….
    - `points`, `weights`, `mask`, `grid`: see `Arrays`. With points of each trajectory's own,
      `[samples, tokens, dimension]`, states are `[samples, times, tokens(, channels)]`.
    - `parameters`, `constant`: see `Paths`.
    - `validation`, `test`: the fractions of the trajectories that are held out at random, the
      same for every run; or the trajectories of that part. `test` 0 makes no test part;
      `validation` 1 holds out all.
    - `channels`: whether states have a last axis of channels.
    - `stride`: every so-many-th time is used.
    - `steps`: how many times lie between the states of a pair. With several numbers, or at
      unequal times, one model learns several Δt.
    - `unrolled`: the steps of a roll-out in the loss, see `RolloutError`; with more than 1 the
      targets are a list, the states after each step.
    - `pushforward`: whether the gradient of each step ends at its inputs, see
      `PushforwardError`.
    - `normalize`: whether the model computes in standard deviations from the mean of the
      training part, see `statistics`; it takes and gives the units of the data.

    **Raises:** `InputError` for arrays that do not fit each other, numbers that are not finite,
    states that are zero, too few times, and for trajectories of one part that are windows of
    trajectories in another part.
    """

    configurable: ClassVar[bool] = True
    holds_out_all = True

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
        self.whole = validation == 1
        whole = Paths(trajectories, parameters, constant)
        held_out: dict[str, Any] = {"validation": validation, "test": test}
        if points is not None and points.ndim == 3:
            whole = whole._replace(points=points, weights=weights, mask=mask)
            whole, held_out = _at_own_points(whole, held_out, grid)
            points = None
            weights = None
        elif mask is not None:
            raise InputError("mask belongs to points of each trajectory's own; drop it.")
        super().__init__(
            _divided(whole, held_out),
            np.arange(trajectories.shape[1]) if times is None else times,
            points=points,
            weights=weights,
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
        **options: Any,
    ) -> "Trajectories":
        """Reads the array `inputs` from a file or folder (how-to/own-data.md), several names as
        channels, and if they exist `times`, `points`, `weights`, `parameters` and `constant`,
        and for the parts `validation_trajectories`, `test_parameters` and so on. Points of each
        trajectory's own may be NaN where it has fewer."""
        stored = stored_arrays(path, {"trajectories": inputs}, dimensions)
        inputs = inputs if isinstance(inputs, str) else "trajectories"
        if found(path, stored, inputs).dimensions[-1:] == ("channels",):
            options.setdefault("channels", True)
        if "grid" in stored and stored["grid"].numbers == 1:
            options.setdefault("grid", str(stored["grid"].read()))
        parts = parts_in_file(stored, (inputs,), options)
        prefixes = ["", *(f"{part}_" for part in parts)]
        others = Paths._fields[1:]
        names = [f"{prefix}{name}" for prefix in prefixes for name in (inputs, *others)]
        arrays = read_arrays(path, stored, ["times", *names])
        for prefix in prefixes:
            with_mask(arrays, prefix, [f"{prefix}constant"], [f"{prefix}{inputs}"])
        if "points" not in arrays or arrays["points"].ndim < 3:
            others = ("parameters", "constant")  # the points are of all trajectories
            arrays.pop("mask", None)
        for part in parts:
            given = (arrays.get(f"{part}_{name}") for name in others)
            options[part] = Paths(arrays[f"{part}_{inputs}"], *given)
        further = ("times", "points", "weights", "parameters", "constant")
        options["mask"] = arrays.get("mask")
        return cls(arrays[inputs], *map(arrays.get, further), **options)


def _at_own_points(
    whole: Paths, held_out: dict[str, Any], grid: PointRule | None
) -> tuple[Paths, dict[str, Any]]:
    """Pads the trajectories to divide, and the parts that are given, at the end, to one number
    of points."""
    given = {"": whole}
    given |= {part: held for part, held in held_out.items() if isinstance(held, Paths)}
    found = {}
    for part, (states, _, constant, points, weights, mask) in given.items():
        prefix = part and f"{part}_"
        if points is None or states.shape[:3:2] != points.shape[:2]:
            of_points = "missing" if points is None else [*points.shape]
            raise InputError(
                f"{prefix}trajectories are {[*states.shape]}, and {prefix}points are "
                f"{of_points}; give [samples, times, tokens] and points of each "
                "trajectory's own, [samples, tokens, dimension]."
            )
        found[part] = scattered(
            np.moveaxis(states, 1, 2),
            np.zeros(len(states)) if constant is None else constant,
            points,
            weights,
            mask,
            period=_period(points, grid),
            part=prefix,
            names=("trajectories", "constant"),
        )
    most = max(x.points.shape[1] for x in found.values())
    for part, paths in given.items():
        own = found[part].padded(most)
        given[part] = Paths(
            np.moveaxis(own.inputs, 1, 2),
            paths.parameters,
            None if paths.constant is None else own.targets,
            own.points,
            own.weights,
            np.arange(most) < own.lengths[:, None],
        )
    return given.pop(""), held_out | given


def _own_points(parts: Mapping[str, Paths]) -> dict[str, tuple[Any, ...]] | None:
    """Points, weights and padded lengths of the trajectories of each part; `None` if all share
    their points."""
    if all(paths.points is None for paths in parts.values()):
        return None
    own = {}
    for part, paths in parts.items():
        if paths.points is None or paths.weights is None or paths.mask is None:
            raise InputError(
                f"the {part} trajectories have no points of their own, weights and mask, and "
                "others have; give them to all parts."
            )
        own[part] = paths.points, paths.weights, paths.mask.sum(axis=1)
    return with_padded_lengths(own)


def _period(points: np.ndarray, grid: PointRule | None) -> tuple[float, ...] | None:
    return (1.0,) * points.shape[2] if grid == "periodic" else None


def _divided(whole: Paths, held_out: dict[str, Any]) -> dict[str, Paths]:
    """The parts of trajectories, with training first."""
    number = len(whole.states)
    for name, x in zip(("parameters", "constant"), whole[1:3], strict=True):
        if x is not None and len(x) != number:
            raise InputError(f"{name} are of {len(x)} trajectories, and there are {number}.")
    drawn = drawn_parts(number, held_out)
    parts = {
        part: jax.tree.map(op.itemgetter(np.sort(some)), whole) for part, some in drawn.items()
    }
    parts |= {part: held for part, held in held_out.items() if isinstance(held, Paths)}
    sizes = {part: len(paths.states) for part, paths in parts.items()}
    check_parts(sizes, held_out, f"{number} trajectories")
    return parts


def _arrays(
    part: str, paths: Paths, shape: tuple[int, ...], *, channels: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """The states of a part, each of this shape, and the further channels of its inputs."""
    if paths.states.shape[1:] != shape:
        raise InputError(
            f"{part} trajectories are {[*paths.states.shape]}; give each as in training, "
            f"{[*shape]}."
        )
    states = _real("trajectories", paths.states)
    number = len(states)
    points = shape[1 : len(shape) - channels]
    further = []
    if paths.parameters is not None:
        own = _real("parameters", paths.parameters)
        own = np.expand_dims(own, tuple(range(1, 1 + len(points))))
        further.append(np.broadcast_to(own, (number, *points, own.shape[-1])))
    if paths.constant is not None:
        own = _real("constant", paths.constant)
        if own.shape[: 1 + len(points)] != (number, *points) or own.ndim > 2 + len(points):
            raise InputError(
                f"constant is {[*own.shape]}; give {[number, *points]}, or with channels "
                f"{[number, *points, 'channels']}."
            )
        further.append(own if own.ndim > 1 + len(points) else own[..., None])
    if not further:
        return states, None
    return states if channels else states[..., None], np.concatenate(further, axis=-1)


def _real(name: str, x: np.ndarray) -> Float[np.ndarray, "..."]:
    return finite_numbers(name, x).astype(np.float32, copy=False)


def _increasing(times: np.ndarray, number: int) -> np.ndarray:
    """The times in double precision; dates as seconds since the first."""
    if times.shape == (number,) and times.dtype.kind == "M":
        times = (times - times[0]) / np.timedelta64(1, "s")
    right = times.shape == (number,) and times.dtype.kind in "fiu"
    if not right or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise InputError(
            f"times are {times.dtype}{[*times.shape]}; give {number} increasing numbers, one "
            "for each state of a trajectory."
        )
    return times.astype(float)
