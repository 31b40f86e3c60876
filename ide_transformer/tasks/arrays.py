"""Your own samples, from arrays."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ..arguments import Fraction, FractionOrAll, PositiveInt, checked
from ..equation import PointRule
from ..errors import InputError, at
from ..models import (
    Field,
    FunctionClassifier,
    FunctionRegressor,
    ImageClassifier,
    LanguageModel,
    Model,
    OperatorModel,
    SequenceClassifier,
    SequenceRegressor,
    Statistics,
    statistics,
)
from .files import found, numbered, read_arrays, stored_arrays
from .leaks import check_later_inputs, check_trajectories
from .losses import (
    UNCOUNTED,
    Batch,
    CrossEntropy,
    InstanceCrossEntropy,
    MeanSquaredError,
    RelativeError,
)
from .points import check_parts, coarser, domains_at, drawn_parts, finite_numbers, grid_like
from .scattered import Scattered, scattered_parts, with_mask, with_padded_lengths
from .task import AbstractDataSet, Part, checksum_of_all


_OF_FUNCTIONS = ("points", "weights", "grid", "channels", "normalize")
# The loss of each model, and the options that its data use.
_LEARNED = {
    OperatorModel: (RelativeError(), _OF_FUNCTIONS),
    FunctionClassifier: (CrossEntropy(), (*_OF_FUNCTIONS, "classes")),
    FunctionRegressor: (MeanSquaredError(), _OF_FUNCTIONS),
    SequenceClassifier: (CrossEntropy(), ("vocabulary", "classes")),
    SequenceRegressor: (MeanSquaredError(), ("vocabulary",)),
    LanguageModel: (InstanceCrossEntropy(), ("vocabulary",)),
    ImageClassifier: (CrossEntropy(), ("classes", "normalize")),
}


class Arrays(AbstractDataSet):
    """Predict the targets of samples that are arrays. Types and shapes decide the model:

    | `inputs` | `targets` | model |
    |---|---|---|
    | real `[samples, *points(, channels)]` | real at the same points | `OperatorModel` |
    | real `[samples, *points(, channels)]` | real `[samples(, k)]` | `FunctionRegressor` |
    | real `[samples, times(, channels)]` | integers `[samples]` | `FunctionClassifier` |
    | real `[samples, rows, columns(, channels)]` | integers `[samples]` | `ImageClassifier` |
    | integers `[samples, tokens]` | integers `[samples]`, classes | `SequenceClassifier` |
    | integers `[samples, tokens]` | real `[samples(, k)]` | `SequenceRegressor` |
    | integers `[samples, tokens]` | integers of the same shape, -1: none | `LanguageModel` |

    With `channels`, `points` or a `grid`, what looks like images are functions with classes.

    **Arguments:**

    - `points`: of functions that are not on a grid, `[tokens]` or `[tokens, dimension]`, in
      [0, 1]; values are then `[samples, tokens]`. Points of each sample's own are `[samples,
      tokens, dimension]`.
    - `weights`: of these points in integrals, `[tokens]`, or `[samples, tokens]` for points of
      each sample's own; default: the sizes of their cells.
    - `groups`: integers or texts, `[samples]`, equal for samples of one trajectory, patient or
      place. A group is wholly in the training, validation or test part. Trajectories need it:
      the target of one step is the input of the next.
    - `validation`, `test`: the fractions of the samples, or of the groups, that are held out at
      random, the same for every run; or the inputs and targets of that part, and its points,
      weights and mask as far as samples have their own. `test` 0 makes no test part;
      `validation` 1 holds out all samples.
    - `mask`: `[samples, tokens]`, `False` where points of each sample's own are padding. A file
      may have NaN there instead.
    - `grid`: of functions, see `FunctionInputs`; default: "midpoint", or "periodic" for targets
      at the same points without `points`.
    - `channels`: whether inputs, and targets at points, have a last axis of channels, not
      necessarily equally many.
    - `normalize`: whether the model computes with inputs, and targets at points, in standard
      deviations from the mean of the training part, see `statistics`; it takes and gives the
      units of the data. Default: only with one class, or numbers, for each function. Targets
      that are numbers of a sample always are.
    - `causal`: whether a token sees only itself and the tokens before it, as in a forecast;
      for a target at each token of a line. `False` allows targets that are later inputs.
    - `vocabulary`, `classes`: default: as many as there are.
    - `patch`: the side of a patch of an image, in pixels.

    **Raises:** `InputError` for arrays that do not fit each other, numbers that are not finite,
    integers out of range, options that the data do not use, targets that are inputs of later
    tokens (also times a factor, or at a tenth of the places) without `causal`, and targets that
    are inputs of other samples without `groups`.
    """

    # It depends on the arrays.
    model = Model
    holds_out_all = True
    _sizes: dict[str, Any]

    @checked
    def __init__(
        self,
        inputs: Shaped[np.ndarray, "samples ..."],
        targets: Shaped[np.ndarray, "_ ..."],
        points: Shaped[np.ndarray, "_ ..."] | None = None,
        weights: Shaped[np.ndarray, "_ ..."] | None = None,
        groups: Shaped[np.ndarray, " _"] | None = None,
        *,
        validation: FractionOrAll | tuple[np.ndarray, ...] = 0.1,
        test: Fraction | tuple[np.ndarray, ...] = 0.0,
        mask: Shaped[np.ndarray, "samples tokens"] | None = None,
        grid: PointRule | None = None,
        channels: bool = False,
        normalize: bool | None = None,
        causal: bool | None = None,
        vocabulary: PositiveInt | None = None,
        classes: PositiveInt | None = None,
        patch: PositiveInt = 2,
    ):
        self.patch = patch
        self.domains = None
        self.causal = bool(causal)
        self.whole = validation == 1
        held_out: dict[str, Any] = {"validation": validation, "test": test}
        columns: tuple[Any, ...] = inputs, targets
        self.own_points = points is not None and points.ndim == 3
        self.period = None
        if self.own_points:
            assert points is not None
            self.period = (1.0,) * points.shape[-1] if grid == "periodic" else None
            columns, held_out = scattered_parts(
                inputs, targets, points, weights, mask, held_out, self.period
            )
        self.data = _divided(columns, groups, held_out, channels)
        if self.own_points:
            self.data = with_padded_lengths(self.data)
            inputs, targets, weights, mask = *columns[:2], None, None
        shape = inputs.shape
        axes: tuple[int, ...] = shape[1 : inputs.ndim - channels]
        given: dict[str, Any] = {"points": points, "grid": grid, "channels": channels or None}
        given |= {
            "weights": weights,
            "mask": mask,
            "vocabulary": vocabulary,
            "classes": classes,
            "normalize": normalize or None,
        }
        kind = self._kind(axes, targets, image=not (channels or points is not None or grid))
        if kind in (OperatorModel, FunctionClassifier, FunctionRegressor):
            around = kind is OperatorModel and points is None and not causal
            grid = grid or ("periodic" if around else "midpoint")
            if self.own_points:
                assert points is not None
                axes = grid_like(*points.shape[1:])
            elif points is not None:
                self.domains, axes = domains_at(points, weights, axes, grid)
                del given["weights"]
            self._sizes = {"points": axes[0] if len(axes) == 1 else axes, "grid": grid}
            self._sizes["fields"] = points is not None
            if channels:
                self._sizes["channels"] = shape[-1]
            if normalize or (normalize is None and kind is not OperatorModel):
                self._sizes["statistics"] = self._statistics(0, channels)
        if kind is OperatorModel:
            self._check_norms()
            if channels:
                self._sizes["output_channels"] = targets.shape[-1]
            if normalize:
                self._sizes["output_statistics"] = self._statistics(1, channels)
        elif kind is ImageClassifier:
            self._sizes = {"image_shape": (*shape[1:], 1)[:3]}
            if normalize:
                self._sizes["statistics"] = self._statistics(0, inputs.ndim == 4)
        elif kind is LanguageModel:
            numbers = [self._number("vocabulary", vocabulary, column) for column in (0, 1)]
            self._sizes = {"vocabulary": max(numbers)}
        elif kind in (SequenceClassifier, SequenceRegressor):
            self._sizes = {"vocabulary": self._number("vocabulary", vocabulary, 0)}
        if kind in (FunctionClassifier, ImageClassifier, SequenceClassifier):
            self._sizes["classes"] = self._number("classes", classes, 1)
        elif kind in (FunctionRegressor, SequenceRegressor):
            several = targets.ndim == 2
            self._sizes["numbers"] = targets.shape[1] if several else None
            self._sizes["output_statistics"] = self._statistics(1, several)
        if kind is None:
            raise InputError(
                f"inputs {inputs.dtype}{[*shape]} and targets {targets.dtype}"
                f"{[*targets.shape]} do not fit; give functions as real numbers of one shape "
                "(with channels=True if both have a last axis of channels), images as real "
                "numbers [samples, rows, columns], tokens as integers, classes as integers "
                "[samples], targets.argmax(1) of one-hot ones, and numbers of a sample as real "
                "numbers [samples] or [samples, numbers]."
            )
        self.loss, used = _LEARNED[kind]
        if points is None:
            used = [name for name in used if name != "weights"]
        unused = [name for name, x in given.items() if x is not None and name not in used]
        if unused:
            raise InputError(
                f"data for {kind.__name__} do not use {' and '.join(unused)}; drop "
                f"{'it' if len(unused) == 1 else 'them'}."
            )
        vars(self)["model"] = kind
        on_line = kind is LanguageModel or (
            kind is OperatorModel and isinstance(self._sizes["points"], int)
        )
        if causal and (not on_line or self._sizes.get("grid") == "periodic"):
            raise InputError(
                "causal=True is for a target at each token of a line, of functions with "
                "grid=midpoint; drop it."
            )
        if causal is None and on_line and not self.own_points:
            inputs, targets, *_ = self.data["validation" if self.whole else "training"]
            check_later_inputs(inputs, targets)

    @classmethod
    def build(
        cls,
        path: str | Path,
        inputs: str | list[str] = "inputs",
        targets: str | list[str] = "targets",
        groups: str | None = None,
        dimensions: list[str] | None = None,
        labels: list[str] | None = None,
        **options: Any,
    ) -> "Arrays":
        """Reads arrays by name from a file or folder (how-to/own-data.md): `inputs`, `targets`,
        and if they exist `points`, `weights`, `mask`, `groups`, and those of a part,
        `validation_inputs`, `test_points` and so on.

        Several names become channels. Inputs `[samples, columns]` are series, or with
        `channels` unrelated columns, each in a unit of its own. Texts as targets are classes:
        those of `labels` in their order, by default all in sorted order, which is printed and
        kept by a run.

        `parameters`, `[samples, k]`, such as a viscosity, become k further channels of the
        inputs, constant in each sample, see `with_parameters`; targets at points then have an
        axis of channels too. Other parts have their own, `validation_parameters`."""
        roles = {"inputs": inputs, "targets": targets, "groups": groups or "groups"}
        stored = stored_arrays(path, roles, dimensions)
        inputs, targets = (
            x if isinstance(x, str) else role
            for role, x in (("inputs", inputs), ("targets", targets))
        )
        if inputs in stored and stored[inputs].dimensions[-1:] == ("channels",):
            options.setdefault("channels", True)
        pair = (inputs, targets)
        parts = {part: [f"{part}_{name}" for name in pair] for part in ("validation", "test")}
        parts = {part: names for part, names in parts.items() if stored.keys() & set(names)}
        for part, names in parts.items():
            own = [f"{part}_{name}" for name in ("points", "weights", "mask")]
            names += [name for name in own if name in stored]
        needed = sum(parts.values(), [*pair, *([] if groups is None else [groups])])
        for name in needed:
            found(path, stored, name)
        if "validation" in parts and options.get("validation") == 1:
            del options["validation"]  # the file says itself what is held out
        if both := [part for part in parts if options.get(part)]:
            raise InputError(
                f"data.{both[0]}={options[both[0]]}: {path} has {both[0]} samples of its own; "
                f"write data.{both[0]}=null, or drop its arrays."
            )
        further = ["points", "weights", groups or "groups"]
        # The inputs and targets to which parameters belong.
        belong = {"parameters": pair} if "parameters" in stored else {}
        for part, names in parts.items() if belong else ():
            belong[f"{part}_parameters"] = names[0], names[1]
        if missing := [name for name in belong if name not in stored]:
            raise InputError(
                f"data.path={path}: there are parameters, and no {missing[0]}; add it."
            )
        of_file = (*needed, *further, *belong, "mask")
        arrays = read_arrays(path, stored, of_file)
        of_parts = (targets, *(names[1] for names in parts.values()))
        classes, known = numbered(path, {name: arrays[name] for name in of_parts}, labels)
        arrays |= classes
        if known is not None and arrays[targets].ndim == 1:
            options.setdefault("classes", len(known))
        if options.get("channels"):
            for name in (inputs, *(names[0] for names in parts.values())):
                table = arrays[name]
                if table.ndim == 2 and table.dtype.kind in "iuf":
                    # Its columns are the channels of one token.
                    arrays[name] = table[:, None].astype(np.result_type(table, np.float32))
        if belong:
            channels = options.get("channels", False)
            at_points = arrays[targets].shape[1:] == arrays[inputs].shape[1:]
            for name, (x, y) in belong.items():
                arrays[x] = with_parameters(arrays[x], arrays[name], channels=channels)
                if at_points and not channels:
                    arrays[y] = arrays[y][..., None]
            options["channels"] = True
        with_mask(arrays, "", pair)
        for part, names in parts.items():
            with_mask(arrays, f"{part}_", names[:2])
            names += [f"{part}_mask"] if f"{part}_mask" in arrays.keys() - names else []
        options |= {part: tuple(arrays[x] for x in names) for part, names in parts.items()}
        options["mask"] = arrays.get("mask")
        task = cls(arrays[inputs], arrays[targets], *map(arrays.get, further), **options)
        task.labels = known
        return task

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation", "test") if len(self.data["test"][0]) else ("validation",)

    @property
    def sizes(self) -> dict[str, Any]:
        return self._sizes

    @property
    def tokens_per_sample(self) -> int:
        if self.own_points:
            return round(self.data["validation" if self.whole else "training"][-1].mean())
        shape = self.data["training"][0].shape[1:]
        if "image_shape" in self._sizes:
            return shape[0] // self.patch * (shape[1] // self.patch)
        return int(np.prod(shape[: len(shape) - ("channels" in self._sizes)]))

    def with_tokens(self, tokens: int | tuple[int, ...]) -> "Arrays":
        """Functions on a coarser grid, with `tokens` points along each axis: a subset of the
        points of a "periodic" grid, means of neighbours on a "midpoint" grid."""
        whole = self._sizes.get("points", ())
        axes, fewer = (x if isinstance(x, tuple) else (x,) for x in (whole, tokens))
        fewer = fewer * len(axes) if len(fewer) == 1 else fewer
        grid = None if self.domains or self.own_points else self._sizes.get("grid")
        fits = len(axes) == len(fewer) and not any(
            n % m for n, m in zip(axes, fewer, strict=True)
        )
        if grid not in ("periodic", "midpoint") or not fits:
            raise InputError(
                f"tokens={tokens}: of arrays, only functions on a periodic or midpoint grid "
                "have coarser ones, whose number of points divides theirs; for others evaluate "
                "on a file with these points, data.path=…, or write a task with with_tokens."
            )

        other = copy.copy(self)
        points = fewer if isinstance(whole, tuple) else fewer[0]
        other._sizes = {**self._sizes, "points": points}
        if self.model is not OperatorModel:
            other.data = {
                part: (coarser(x, fewer, grid), y) for part, (x, y) in self.data.items()
            }
            return other
        other.data = {
            part: tuple(coarser(x, fewer, grid) for x in pair)
            for part, pair in self.data.items()
        }
        with at(f"tokens={tokens}"):
            other._check_norms()
        return other

    def fingerprint(self) -> str:
        """A checksum of all samples, and of their points and weights."""
        own = super().fingerprint()
        return own if self.domains is None else checksum_of_all((own, self.domains))

    def contents(self, batch: Batch) -> list[bytes]:
        """The inputs and targets of each sample, and its points if it has its own, without
        padding."""
        if not self.own_points:
            return super().contents(batch)
        domain = batch.inputs.domain
        there = np.asarray(domain.weights) > 0
        at_points = [batch.inputs.values, domain.points]
        whole = batch.targets
        if isinstance(whole, Field):
            at_points.append(whole.values)
        found = [
            b"".join(np.asarray(x)[i, there[i]].tobytes() for x in at_points)
            for i in range(len(there))
        ]
        if isinstance(whole, Field):
            return found
        return [x + y.tobytes() for x, y in zip(found, whole, strict=True)]

    def lengths(self, part: str) -> np.ndarray | None:
        return self.data[part][-1] if self.own_points else None

    def chosen(self, part: str, samples: np.ndarray) -> Batch:
        if self.own_points:
            inputs, targets, points, weights, lengths = (x[samples] for x in self.data[part])
            own = Scattered(inputs, targets, points, weights, lengths)
            return Batch(*own.fields(self.period))
        inputs, targets = (x[samples] for x in self.data[part])
        if "image_shape" in self._sizes:
            inputs = inputs.reshape(len(inputs), *self._sizes["image_shape"])
        if self.domains is None:
            return Batch(inputs, targets)
        own, of_norms = self.domains
        at_points = self.model is OperatorModel
        return Batch(Field(inputs, own), Field(targets, of_norms) if at_points else targets)

    def _kind(
        self, axes: tuple[int, ...], targets: np.ndarray, *, image: bool
    ) -> Callable[..., Model] | None:
        """What learns the arrays. `axes` are the points of an input, and `image` says whether
        two or three may be an image. `None` if the arrays do not fit."""
        types = "".join(x.dtype.kind for x in self.data["training"][:2])
        of_targets = targets.shape[1:]
        of_samples = targets.ndim in (1, 2) and not _one_hot(targets)
        if types == "ff" and axes:
            channels = self.data["training"][0].ndim - 1 - len(axes)
            if targets.shape[1 : targets.ndim - channels] == axes:
                return OperatorModel
            # Targets at the points, whose axis of channels is missing, are no numbers.
            return FunctionRegressor if of_samples and of_targets != axes else None
        if types == "fi" and axes and targets.ndim == 1:
            return ImageClassifier if image and len(axes) in (2, 3) else FunctionClassifier
        if types == "ii" and len(axes) == 1:
            if of_targets == axes:
                return LanguageModel
            return SequenceClassifier if targets.ndim == 1 else None
        if types == "if" and len(axes) == 1 and of_samples and of_targets != axes:
            return SequenceRegressor
        return None

    def _statistics(self, column: int, channels: bool) -> Statistics:
        """The statistics of inputs (0) or targets (1) to learn."""
        columns = self.data["validation" if self.whole else "training"]
        values = columns[column]
        if self.own_points and values.shape[:2] == columns[3].shape:
            values = values[columns[3] > 0]  # padding has none
        return statistics(values, channels=channels, name=("inputs", "targets")[column])

    def _check_norms(self) -> None:
        """Raises for targets whose norm, as `RelativeError` computes it, is 0 or not finite."""
        limits = np.finfo(np.float32)
        shares = None if self.domains is None else np.asarray(self.domains[1].shares)
        for part, (_, functions, *own) in self.data.items():
            if not len(functions):
                continue
            v = functions.reshape(*functions.shape[:2], -1)
            weights = np.ones(v.shape[1]) if shares is None else shares
            if own:
                weights = own[1] / own[1].sum(axis=1, keepdims=True)
            weights = np.broadcast_to(weights, v.shape[:2])
            squares = np.einsum("npc,npc,np->n", v, v, weights, dtype=float)
            # Squares that are rounded to zero have to be small beside the others.
            wrong = (squares < 1e3 * limits.tiny * v[0].size) | (squares > limits.max)
            if wrong.any():
                raise InputError(
                    f"targets of {wrong.sum()} {part} samples have a norm of "
                    f"{np.sqrt(squares[wrong][0]):.0e}, whose square is zero or not finite in "
                    "single precision; a relative error needs it. Scale all targets, or leave "
                    "these samples out."
                )

    def _number(self, name: str, given: int | None, column: int) -> int:
        """The number of different integers in the inputs (0) or the targets (1)."""
        arrays = [part[column] for part in self.data.values() if part[column].size]
        least = min(x.min() for x in arrays)
        most = max(x.max() for x in arrays)
        lowest = UNCOUNTED if column and name == "vocabulary" else 0
        if least < lowest or (given is not None and most >= given):
            raise InputError(
                f"{('inputs', 'targets')[column]} have the integers {least} to {most}; give "
                f"them from {lowest}" + (f" to {name} - 1 = {given - 1}." if given else ".")
            )
        return given or int(most) + 1


def _one_hot(targets: np.ndarray) -> bool:
    """Whether real targets are classes, each a row of zeros with a one."""
    if targets.ndim != 2 or targets.shape[1] == 1:
        return False
    return bool(np.isin(targets, (0, 1)).all() and (targets.sum(1) == 1).all())


@checked
def with_parameters(
    values: Shaped[np.ndarray, "samples ..."],
    parameters: Shaped[np.ndarray, "samples ..."],
    *,
    channels: bool = False,
) -> Shaped[np.ndarray, "samples ..."]:
    """Functions with parameters of each sample as further channels that are constant,
    `[samples, *points, channels + k]`.

    **Arguments:**

    - `values`: `[samples, *points]`, or `[samples, *points, channels]` with `channels`.
    - `parameters`: `[samples]` or `[samples, k]`, such as a viscosity or a source of the data.
    """
    if not channels:
        values = values[..., None]
    own = parameters.reshape(len(parameters), *(1,) * (values.ndim - 2), -1)
    if len(own) != len(values) or parameters.ndim > 2 or values.dtype.kind != "f":
        raise InputError(
            f"parameters {parameters.dtype}{[*parameters.shape]} do not fit functions of "
            f"{len(values)} samples, {values.dtype}; give real functions, and a row of "
            "parameters for each."
        )
    constant = np.broadcast_to(own, (*values.shape[:-1], own.shape[-1]))
    return np.concatenate([values, constant], axis=-1, dtype=values.dtype)


def _divided(
    columns: tuple[Any, ...], groups: Any, held_out: dict[str, Any], channels: bool
) -> dict[str, Any]:
    """The parts of the samples, with real numbers in single precision."""
    named = "inputs", "targets", "points", "weights", "lengths"
    whole = tuple(finite_numbers(*x) for x in zip(named, columns, strict=False))
    number = len(whole[0])
    if number != len(whole[1]):
        raise InputError(f"inputs have {number} samples, and targets {len(whole[1])}.")
    if groups is not None and (groups.shape != (number,) or groups.dtype.kind not in "iuUS"):
        raise InputError(
            f"groups are {groups.dtype}{[*groups.shape]}; give a whole number or a text for "
            f"each of {number} samples."
        )
    of = np.arange(number) if groups is None else np.unique(groups, return_inverse=True)[1]
    if any(0 < held < 1 for held in held_out.values() if not isinstance(held, tuple)):
        inputs, targets, *_ = whole
        check_trajectories(inputs, targets, None if groups is None else of, channels=channels)
    all_groups = int(of.max(initial=-1)) + 1
    drawn = drawn_parts(all_groups, held_out)
    parts = {}
    for part, held in held_out.items():
        if part in drawn:
            parts[part] = tuple(x[np.isin(of, drawn[part])] for x in whole)
            continue
        names = [f"{part}_{name}" for name in named[: len(whole)]]
        parts[part] = tuple(map(finite_numbers, names, held))
        for name, x, like in zip(names, parts[part], whole, strict=True):
            if (x.shape[1:], x.dtype, len(x)) != (like.shape[1:], like.dtype, len(held[0])):
                raise InputError(
                    f"{name} are {x.dtype}{[*x.shape]}; give {len(held[0])} samples of the "
                    f"kind to learn, {like.dtype}{[*like.shape]}."
                )
    parts["training"] = tuple(x[np.isin(of, drawn["training"])] for x in whole)
    divided = "" if groups is None else f" in {all_groups} groups"
    sizes = {part: len(x) for part, (x, *_) in parts.items()}
    check_parts(sizes, held_out, f"{number} samples{divided}")
    return parts
