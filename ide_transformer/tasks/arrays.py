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
from .files import found, numbered, parts_in_file, read_arrays, stored_arrays
from .leaks import check_later_inputs, check_trajectories
from .losses import (
    UNCOUNTED,
    Batch,
    CrossEntropy,
    InstanceCrossEntropy,
    MeanSquaredError,
    RelativeError,
)
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
from .scattered import Scattered, scattered_parts, with_mask, with_padded_lengths
from .task import AbstractDataSet, checksum_of_all


_OF_FUNCTIONS = ("points", "grid", "channels", "normalize")
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
        self.causal = bool(causal)
        self.whole = validation == 1
        self.domains = None
        self.period = None
        held_out: dict[str, Any] = {"validation": validation, "test": test}
        columns: tuple[Any, ...] = inputs, targets
        self.own_points = points is not None and points.ndim == 3
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
        axes: tuple[int, ...] = inputs.shape[1 : inputs.ndim - channels]
        image = not (channels or points is not None or grid)
        kind = _kind(axes, inputs, targets, image=image)
        vars(self)["model"] = kind
        self.loss, used = _LEARNED[kind]
        given = {
            "points": points,
            "weights": weights if points is None else None,
            "mask": mask,
            "grid": grid,
            "channels": channels or None,
            "normalize": normalize or None,
            "vocabulary": vocabulary,
            "classes": classes,
        }
        unused = [name for name, x in given.items() if x is not None and name not in used]
        if unused:
            raise InputError(
                f"data for {kind.__name__} do not use {' and '.join(unused)}; drop "
                f"{'it' if len(unused) == 1 else 'them'}."
            )
        if "points" in used:
            around = kind is OperatorModel and points is None and not causal
            grid = grid or ("periodic" if around else "midpoint")
            if self.own_points:
                assert points is not None
                axes = grid_like(*points.shape[1:])
            elif points is not None:
                self.domains, axes = domains_at(points, weights, axes, grid)
            self._sizes = {"points": axes[0] if len(axes) == 1 else axes, "grid": grid}
            self._sizes["fields"] = points is not None
            if channels:
                self._sizes["channels"] = inputs.shape[-1]
        elif kind is ImageClassifier:
            self._sizes = {"image_shape": (*inputs.shape[1:], 1)[:3]}
            channels = inputs.ndim == 4
        else:
            tokens = (0, 1) if kind is LanguageModel else (0,)
            numbers = [self._number("vocabulary", vocabulary, column) for column in tokens]
            self._sizes = {"vocabulary": max(numbers)}
        if normalize is None:
            normalize = kind in (FunctionClassifier, FunctionRegressor)
        if normalize:
            self._sizes["statistics"] = self._statistics(0, channels)
        if kind is OperatorModel:
            self._check_norms()
            if channels:
                self._sizes["output_channels"] = targets.shape[-1]
            if normalize:
                self._sizes["output_statistics"] = self._statistics(1, channels)
        elif "classes" in used:
            self._sizes["classes"] = self._number("classes", classes, 1)
        elif kind is not LanguageModel:
            several = targets.ndim == 2
            self._sizes["numbers"] = targets.shape[1] if several else None
            self._sizes["output_statistics"] = self._statistics(1, several)
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
        and if they exist `points`, `weights`, `mask`, `groups`, and the same for a part,
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
        at_points = ("points", "weights", "mask")
        parts = parts_in_file(stored, pair, options)
        prefixes = ["", *(f"{part}_" for part in parts)]
        has_parameters = "parameters" in stored
        needed = [f"{prefix}{name}" for prefix in prefixes for name in pair]
        if has_parameters:
            needed += [f"{prefix}parameters" for prefix in prefixes]
        if groups is not None:
            needed.append(groups)
        for name in needed:
            found(path, stored, name)
        optional = [f"{prefix}{name}" for prefix in prefixes for name in at_points]
        arrays = read_arrays(path, stored, (*needed, *optional, groups or "groups"))
        of_targets = [f"{prefix}{targets}" for prefix in prefixes]
        classes, known = numbered(path, {name: arrays[name] for name in of_targets}, labels)
        arrays |= classes
        if known is not None and arrays[targets].ndim == 1:
            options.setdefault("classes", len(known))
        channels = options.get("channels", False)
        for prefix in prefixes:
            x, y = (f"{prefix}{name}" for name in pair)
            if channels and arrays[x].ndim == 2 and arrays[x].dtype.kind in "iuf":
                # The columns of a table are the channels of one token.
                dtype = np.result_type(arrays[x], np.float32)
                arrays[x] = arrays[x][:, None].astype(dtype)
            if has_parameters:
                if arrays[y].shape[1:] == arrays[x].shape[1:] and not channels:
                    arrays[y] = arrays[y][..., None]
                own = arrays[f"{prefix}parameters"]
                arrays[x] = with_parameters(arrays[x], own, channels=channels)
            with_mask(arrays, prefix, (x, y))
        if has_parameters:
            options["channels"] = True
        for part in parts:
            names = [f"{part}_{name}" for name in (*pair, *at_points)]
            options[part] = tuple(arrays[name] for name in names if name in arrays)
        options["mask"] = arrays.get("mask")
        further = ("points", "weights", groups or "groups")
        task = cls(arrays[inputs], arrays[targets], *map(arrays.get, further), **options)
        task.labels = known
        return task

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
        points = self._sizes.get("points", ())
        axes = points if isinstance(points, tuple) else (points,)
        grid = None if self.domains or self.own_points else self._sizes.get("grid")
        fewer = coarser_grid(tokens, axes, grid)

        def coarse(x: np.ndarray) -> np.ndarray:
            return coarser(x, fewer, self._sizes["grid"])

        at_points = self.model is OperatorModel
        other = copy.copy(self)
        other._sizes = {**self._sizes, "points": fewer if axes is points else fewer[0]}
        other.data = {
            part: (coarse(x), coarse(y) if at_points else y)
            for part, (x, y) in self.data.items()
        }
        if at_points:
            with at(f"tokens={tokens}"):
                other._check_norms()
        return other

    def fingerprint(self) -> str:
        """A checksum of all samples, and of their points and weights."""
        own = super().fingerprint()
        return own if self.domains is None else checksum_of_all((own, self.domains))

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

    def _statistics(self, column: int, channels: bool) -> Statistics:
        """The statistics of inputs (0) or targets (1) to learn."""
        columns = self.data["validation" if self.whole else "training"]
        values = columns[column]
        if self.own_points and values.shape[:2] == columns[3].shape:
            values = values[columns[3] > 0]  # padding has none
        return statistics(values, channels=channels, name=("inputs", "targets")[column])

    def _check_norms(self) -> None:
        shared = None if self.domains is None else self.domains[1].weights
        for part, (_, functions, *own) in self.data.items():
            check_norms(part, "targets", functions, own[1] if own else shared)

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


def _kind(
    axes: tuple[int, ...], inputs: np.ndarray, targets: np.ndarray, *, image: bool
) -> Callable[..., Model]:
    """What learns the arrays. `axes`: the points of an input. `image`: whether two or three may
    be an image."""
    types = "".join("f" if x.dtype.kind == "f" else "i" for x in (inputs, targets))
    channels = inputs.ndim - 1 - len(axes)
    # Targets at the points, whose axis of channels is missing, are no numbers.
    numbers = targets.ndim in (1, 2) and targets.shape[1:] != axes and not _one_hot(targets)
    if types == "ff" and axes and targets.shape[1 : targets.ndim - channels] == axes:
        return OperatorModel
    if types == "ff" and axes and numbers:
        return FunctionRegressor
    if types == "fi" and axes and targets.ndim == 1:
        return ImageClassifier if image and len(axes) in (2, 3) else FunctionClassifier
    if types == "ii" and len(axes) == 1 and targets.shape[1:] == axes:
        return LanguageModel
    if types == "ii" and len(axes) == 1 and targets.ndim == 1:
        return SequenceClassifier
    if types == "if" and len(axes) == 1 and numbers:
        return SequenceRegressor
    raise InputError(
        f"inputs {inputs.dtype}{[*inputs.shape]} and targets {targets.dtype}"
        f"{[*targets.shape]} do not fit; give functions as real numbers of one shape "
        "(with channels=True if both have a last axis of channels), images as real "
        "numbers [samples, rows, columns], tokens as integers, classes as integers "
        "[samples], targets.argmax(1) of one-hot ones, and numbers of a sample as real "
        "numbers [samples] or [samples, numbers]."
    )


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
