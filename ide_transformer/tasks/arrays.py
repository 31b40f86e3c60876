"""Your own samples, from arrays."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ..arguments import Fraction, FractionOrAll, PositiveInt, checked
from ..equation import PointRule
from ..errors import InputError, at, shown
from ..models import (
    FunctionClassifier,
    FunctionRegressor,
    ImageClassifier,
    LanguageModel,
    Model,
    OperatorModel,
    SequenceClassifier,
    SequenceRegressor,
    Statistics,
)
from .files import array_names, found, numbered, stored_arrays
from .function_data import FunctionData, build_parts, check_numbers, divide, grid_like, placed
from .leaks import check_later_inputs, check_trajectories
from .losses import (
    UNCOUNTED,
    Batch,
    CrossEntropy,
    InstanceCrossEntropy,
    MeanSquaredError,
    RelativeError,
)
from .named_arrays import parameter_names, read_parts
from .task import AbstractDataSet, checksum_of_all


_AT_POINTS = ("points", "weights", "mask")
_OF_FUNCTIONS = (*_AT_POINTS, "grid", "channels", "normalize")
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
      random, the same for every run; or the inputs and targets of that part, then if they
      differ its points, weights and mask. `test` 0 makes no test part; `validation` 1 holds
      out all samples.
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
    integers out of range, options that the data do not use, targets that all are inputs of
    later tokens without `causal`, and targets that are inputs of other samples without
    `groups`.
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
        validation: FractionOrAll | tuple[np.ndarray | None, ...] = 0.1,
        test: Fraction | tuple[np.ndarray | None, ...] = 0.0,
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
        if points is None or points.ndim < 3:
            check_numbers("inputs", inputs)
            check_numbers("targets", targets)
        axes: tuple[int, ...] = inputs.shape[1 : inputs.ndim - channels]
        image = not (channels or points is not None or grid)
        kind = _kind(axes, inputs, targets, image=image)
        vars(self)["model"] = kind
        self.loss, used = _LEARNED[kind]
        arguments = {
            "points": points,
            "weights": weights,
            "mask": mask,
            "grid": grid,
            "channels": channels or None,
            "normalize": normalize or None,
            "vocabulary": vocabulary,
            "classes": classes,
        }
        unused = [name for name, x in arguments.items() if x is not None and name not in used]
        if unused:
            raise InputError(
                f"data for {kind.__name__} do not use {' and '.join(unused)}; drop "
                f"{'it' if len(unused) == 1 else 'them'}."
            )
        spans = {}
        if "points" in used:
            around = kind is OperatorModel and points is None and not causal
            grid = grid or ("periodic" if around else "midpoint")
            span = slice(1, 1 + len(axes))
            spans = {"inputs": span} | ({"targets": span} if kind is OperatorModel else {})
        names: tuple[str, ...] = ("inputs", "targets", *_AT_POINTS)
        held_out: dict[str, Any] = {"validation": validation, "test": test}
        passed = {part: held for part, held in held_out.items() if isinstance(held, tuple)}
        passed["training"] = inputs, targets, points, weights, mask
        arrays: dict[str, dict[str, Any]] = {
            part: dict(zip(names, (*held, None, None, None), strict=False))
            for part, held in passed.items()
        }
        parts = build_parts(arrays, spans, grid)
        _check_groups(parts["training"], groups, held_out, channels=channels)
        fractions = {part: held for part, held in held_out.items() if part not in arrays}
        self._set(divide(parts, fractions, groups))
        if spans:
            if points is not None:
                axes = grid_like(points)
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
            self._sizes["statistics"] = self._statistics("inputs", channels)
        if kind is OperatorModel:
            self._check_norms()
            if channels:
                self._sizes["output_channels"] = targets.shape[-1]
            if normalize:
                self._sizes["output_statistics"] = self._statistics("targets", channels)
        elif "classes" in used:
            self._sizes["classes"] = self._number("classes", classes, 1)
        elif kind is not LanguageModel:
            several = targets.ndim == 2
            self._sizes["numbers"] = targets.shape[1] if several else None
            self._sizes["output_statistics"] = self._statistics("targets", several)
        on_line = kind is LanguageModel or (
            kind is OperatorModel and isinstance(self._sizes["points"], int)
        )
        if causal and (not on_line or self._sizes.get("grid") == "periodic"):
            raise InputError(
                "causal=True is for a target at each token of a line, of functions with "
                "grid=midpoint; drop it."
            )
        if causal is None and on_line and self.lengths("training") is None:
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
        parameters: str | list[str] | None = None,
        **options: Any,
    ) -> "Arrays":
        """Reads arrays by name from a file or folder (how-to/own-data.md): `inputs`, `targets`,
        and if they exist `points`, `weights`, `mask`, `groups`, and the same for a part,
        `validation_inputs`, `test_points` and so on. No group may be in two parts.

        Several names become channels. Inputs `[samples, columns]` are series, or with
        `channels` unrelated columns, each in a unit of its own. Texts as targets are classes:
        those of `labels` in their order, by default all in sorted order, which is printed and
        kept by a run.

        `parameters`, `[samples]` or `[samples, k]`, such as a viscosity, become k further
        channels of the inputs, constant in each sample, see `with_parameters`; targets at
        points then have an axis of channels too. Other parts have their own,
        `validation_parameters`. The option `parameters` names other arrays, one or several."""
        if labels is not None and len(set(labels)) < len(labels):
            twice = next(x for x in labels if labels.count(x) > 1)
            raise InputError(
                f"data.options.labels: {shown(twice)} is there twice; name it once."
            )
        roles: dict[str, Any] = {"inputs": inputs, "targets": targets}
        roles["groups"] = groups or "groups"
        sources = array_names(roles)
        names = {role: x if isinstance(x, str) else role for role, x in roles.items()}
        if parameters is not None:
            roles |= {x: x for x in parameter_names(parameters)}
        stored = stored_arrays(path, roles, dimensions)
        if names["inputs"] not in stored and "trajectories" in stored:
            raise InputError(
                f"data.path={path}: there is no array {names['inputs']}, but trajectories; set "
                "data.name=trajectories, or name inputs and targets by data.options."
            )
        first = stored.get(names["inputs"])
        if first is not None and first.dimensions[-1:] == ("channels",):
            options.setdefault("channels", True)
        if groups is not None:
            found(path, stored, groups)
        names |= {name: name for name in _AT_POINTS}
        optional = ("groups", *_AT_POINTS)
        parts = read_parts(path, stored, names, optional, parameters, options, sources)
        classes, known = numbered(path, {x: y["targets"] for x, y in parts.items()}, labels)
        if known is not None and classes["training"].ndim == 1:
            options.setdefault("classes", len(known))
        channels = options.get("channels", False)
        for part, columns in parts.items():
            x = columns["inputs"]
            y = classes[part]
            if channels and x.ndim == 2 and x.dtype.kind in "iuf":
                # The columns of a table are the channels of one token.
                x = x[:, None].astype(np.result_type(x, np.float32))
            numbers = columns.pop("parameters", None)
            if numbers is not None:
                if y.shape[1:] == x.shape[1:] and not channels:
                    y = y[..., None]
                x = with_parameters(x, numbers, channels=channels)
                options["channels"] = True
            columns |= {"inputs": x, "targets": y}
        labels_of_groups = {part: columns.pop("groups") for part, columns in parts.items()}
        _check_apart(path, names["groups"], labels_of_groups)
        training = parts.pop("training")
        options |= {part: tuple(columns.values()) for part, columns in parts.items()}
        task = cls(**training, groups=labels_of_groups["training"], **options)
        task.labels = known
        return task

    @property
    def sizes(self) -> dict[str, Any]:
        return self._sizes

    @property
    def tokens_per_sample(self) -> int:
        if "points" in self._sizes:
            return self.functions["validation" if self.whole else "training"].tokens
        rows, *columns = self.data["training"][0].shape[1:3]
        if "image_shape" in self._sizes:
            return rows // self.patch * (columns[0] // self.patch)
        return rows

    def with_tokens(self, tokens: int | tuple[int, ...]) -> "Arrays":
        """Functions on a coarser grid, with `tokens` points along each axis: a subset of the
        points of a "periodic" grid, means of neighbours on a "midpoint" grid."""
        other = copy.copy(self)
        grid = self._sizes.get("grid", "")
        other._set({part: data.coarser(tokens, grid) for part, data in self.functions.items()})
        data = other.functions["training"]
        axes = data.columns["inputs"].shape[data.spans["inputs"]]
        other._sizes = {**self._sizes, "points": axes[0] if len(axes) == 1 else axes}
        if self.model is OperatorModel:
            with at(f"tokens={tokens}"):
                other._check_norms()
        return other

    def fingerprint(self) -> str:
        """A checksum of all samples, and of their points and weights."""
        samples = super().fingerprint()
        at_points = [(x.points, x.weights) for x in self.functions.values()]
        return checksum_of_all((samples, at_points)) if self._sizes.get("fields") else samples

    def lengths(self, part: str) -> np.ndarray | None:
        return self.functions[part].lengths

    def chosen(self, part: str, samples: np.ndarray) -> Batch:
        inputs, targets = (x[samples] for x in self.data[part])
        if "image_shape" in self._sizes:
            inputs = inputs.reshape(len(inputs), *self._sizes["image_shape"])
        domain = self.functions[part].domain(samples)
        at_points = self.model is OperatorModel
        return Batch(placed(inputs, domain), placed(targets, domain) if at_points else targets)

    def _set(self, functions: dict[str, FunctionData]) -> None:
        self.functions = functions
        self.data = {part: tuple(data.columns.values()) for part, data in functions.items()}

    def _statistics(self, name: str, channels: bool) -> Statistics:
        """The statistics of a column to learn."""
        data = self.functions["validation" if self.whole else "training"]
        return data.statistics(name, channels=channels)

    def _check_norms(self) -> None:
        for part, data in self.functions.items():
            data.check_norms(part, "targets", data.columns["targets"])

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


def _check_groups(
    training: FunctionData,
    groups: np.ndarray | None,
    held_out: dict[str, Any],
    *,
    channels: bool,
) -> None:
    """**Raises:** `InputError` for labels that do not fit, and for samples that are drawn at
    random although they belong together."""
    number = len(training)
    if groups is not None and (groups.shape != (number,) or groups.dtype.kind not in "iuUS"):
        raise InputError(
            f"groups are {groups.dtype}{[*groups.shape]}; pass a whole number or a text for "
            f"each of {number} samples."
        )
    if any(0 < held < 1 for held in held_out.values() if not isinstance(held, tuple)):
        labels = None if groups is None else np.unique(groups, return_inverse=True)[1]
        inputs, targets = training.columns.values()
        check_trajectories(inputs, targets, labels, channels=channels)


def _check_apart(path: str | Path, name: str, groups: dict[str, np.ndarray | None]) -> None:
    """**Raises:** `InputError` for a group that is in two parts of a file."""
    for (one, x), (other, y) in itertools.combinations(groups.items(), 2):
        if y is not None and x is None and one == "training":
            raise InputError(f"data.path={path}: {other}_{name} needs {name} in training too.")
        shared = [] if x is None or y is None else np.intersect1d(x, y)
        if len(shared):
            raise InputError(
                f"data.path={path}: {shown(shared[0].item())} of {other}_{name} is also in the "
                f"{one} part; keep each group in one part."
            )
