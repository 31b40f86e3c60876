"""A task of your own samples, from arrays."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from jaxtyping import Float, Shaped

from ..arguments import Bound, Fraction, FractionOrAll, PositiveInt, checked
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
from .files import PREFIXES, array_names, find_array, number_labels, stored_arrays
from .function_data import (
    FunctionData,
    at_points,
    build_parts,
    check_numbers,
    divide,
    grid_like,
)
from .leaks import check_later_inputs, check_trajectories
from .losses import (
    UNCOUNTED,
    Batch,
    CrossEntropy,
    InstanceCrossEntropy,
    MeanSquaredError,
    RelativeError,
)
from .named_arrays import parameter_names, read_named_parts
from .task import AbstractDataSet, checksum_of_all


_DOMAIN = ("points", "weights", "mask")
_FUNCTION_OPTIONS = (*_DOMAIN, "grid", "channels", "normalize")
# Labels of samples. Real numbers would make each sample a group.
_Labels: TypeAlias = Annotated[
    Shaped[np.ndarray, " samples"], Bound("integers or texts", lambda x: x.dtype.kind in "iuUS")
]
# The loss of each model, and the options that its data use.
_MODELS = {
    OperatorModel: (RelativeError(), _FUNCTION_OPTIONS),
    FunctionClassifier: (CrossEntropy(), (*_FUNCTION_OPTIONS, "classes")),
    FunctionRegressor: (MeanSquaredError(), _FUNCTION_OPTIONS),
    SequenceClassifier: (CrossEntropy(), ("vocabulary", "classes")),
    SequenceRegressor: (MeanSquaredError(), ("vocabulary",)),
    LanguageModel: (InstanceCrossEntropy(), ("vocabulary",)),
    ImageClassifier: (CrossEntropy(), ("classes", "normalize")),
}


class Arrays(AbstractDataSet):
    """Predict targets from inputs, both arrays, whose types and shapes decide the model:

    | `inputs` | `targets` | model |
    |---|---|---|
    | real `[samples, *points(, channels)]` | real at the same points | `OperatorModel` |
    | real `[samples, *points(, channels)]` | real `[samples(, k)]` | `FunctionRegressor` |
    | real `[samples, times(, channels)]` | integers `[samples]` | `FunctionClassifier` |
    | real `[samples, rows, columns(, channels)]` | integers `[samples]` | `ImageClassifier` |
    | integers `[samples, tokens]` | integers `[samples]`, classes | `SequenceClassifier` |
    | integers `[samples, tokens]` | real `[samples(, k)]` | `SequenceRegressor` |
    | integers `[samples, tokens]` | integers, one for each token; -1: none | `LanguageModel` |

    With `channels`, `points` or a `grid`, arrays that could be images are functions.

    **Arguments:**

    - `points`: of functions that are not on a grid, `[tokens]` or `[tokens, dimension]`, in
      [0, 1]; values are then `[samples, tokens]`. Points that differ between samples are
      `[samples, tokens, dimension]`.
    - `weights`: of the points in integrals, `[tokens]` or `[samples, tokens]`. Default: the
      sizes of their cells.
    - `groups`: integers or texts, `[samples]`, equal for samples of one trajectory, patient or
      place. All samples of a group are in one part. Steps of trajectories need it, because the
      target of a step is the input of the next.
    - `validation`, `test`: the fraction of the samples, or groups, to hold out at random, the
      same for every run; or a tuple of inputs, targets and, if they differ from training,
      points, weights and mask. `test` 0 makes no test part; `validation` 1 holds out all.
    - `mask`: `[samples, tokens]`, `False` at padding, if points differ between samples. A file
      may have NaN in points instead.
    - `grid`: of functions, see `FunctionInputs`; default: "periodic" for targets at the points
      of a grid, else "midpoint".
    - `channels`: whether inputs, and targets at points, have a last axis of channels. Their
      numbers of channels may differ.
    - `normalize`: whether the model computes with inputs, and targets at points, in standard
      deviations from the mean of the training part, see `statistics`; outside it the data
      keep their units. Default: only for one class, or numbers, of each function. Targets that
      are numbers of a sample are always normalized.
    - `causal`: whether a token sees only itself and earlier tokens, as in a forecast with a
      target at each token of a line. `False` allows targets that are later inputs.
    - `vocabulary`, `classes`: default: the largest integer, plus one.
    - `patch`: the side of a patch of an image, in pixels.

    **Raises:** `InputError` for arrays that do not fit each other, numbers that are not finite,
    integers out of range, options that the data do not use, targets that are all inputs of
    later tokens without `causal`, and targets that are inputs of other samples without
    `groups`.
    """

    # Each task sets its own, which depends on the arrays.
    model = Model
    may_hold_out_all = True
    _sizes: dict[str, Any]

    @checked
    def __init__(
        self,
        inputs: Shaped[np.ndarray, "samples ..."],
        targets: Shaped[np.ndarray, "_ ..."],
        points: Shaped[np.ndarray, "_ ..."] | None = None,
        weights: Shaped[np.ndarray, "_ ..."] | None = None,
        groups: _Labels | None = None,
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
        self.holds_out_all = validation == 1
        if points is None or points.ndim < 3:
            check_numbers("inputs", inputs)
            check_numbers("targets", targets)
        axes: tuple[int, ...] = inputs.shape[1 : inputs.ndim - channels]
        may_be_images = not (channels or points is not None or grid)
        model = _model_of(axes, inputs, targets, may_be_images=may_be_images)
        vars(self)["model"] = model
        self.loss, options = _MODELS[model]
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
        unused = [
            name for name, x in arguments.items() if x is not None and name not in options
        ]
        if unused:
            raise InputError(
                f"data for {model.__name__} do not use {' and '.join(unused)}; drop "
                f"{'it' if len(unused) == 1 else 'them'}."
            )
        is_operator = model is OperatorModel
        spans = {}
        if "points" in options:
            is_periodic = is_operator and points is None and not causal
            grid = grid or ("periodic" if is_periodic else "midpoint")
            span = slice(1, 1 + len(axes))
            spans = {"inputs": span} | ({"targets": span} if is_operator else {})
        held_out: dict[str, Any] = {"validation": validation, "test": test}
        columns = {"training": (inputs, targets, points, weights, mask)}
        columns |= {part: x for part, x in held_out.items() if isinstance(x, tuple)}
        names = ("inputs", "targets", *_DOMAIN)
        arrays: dict[str, dict[str, Any]] = {
            part: dict(zip(names, (*x, None, None, None), strict=False))
            for part, x in columns.items()
        }
        parts = build_parts(arrays, spans, grid)
        if any(0 < x < 1 for x in held_out.values() if not isinstance(x, tuple)):
            labels = None if groups is None else np.unique(groups, return_inverse=True)[1]
            learned = parts["training"].columns
            check_trajectories(learned["inputs"], learned["targets"], labels, channels=channels)
        self._set(divide(parts, held_out, groups))
        if spans:
            if points is not None:
                axes = grid_like(points)
            self._sizes = {"points": axes[0] if len(axes) == 1 else axes, "grid": grid}
            self._sizes["fields"] = points is not None
            if channels:
                self._sizes["channels"] = inputs.shape[-1]
        elif model is ImageClassifier:
            self._sizes = {"image_shape": (*inputs.shape[1:], 1)[:3]}
            channels = inputs.ndim == 4
        else:
            num_tokens = self._count("inputs", "vocabulary", vocabulary)
            if model is LanguageModel:
                num_tokens = max(num_tokens, self._count("targets", "vocabulary", vocabulary))
            self._sizes = {"vocabulary": num_tokens}
        if normalize is None:
            normalize = model in (FunctionClassifier, FunctionRegressor)
        if normalize:
            self._sizes["statistics"] = self._statistics("inputs", channels)
        if is_operator:
            self._check_norms()
            if channels:
                self._sizes["output_channels"] = targets.shape[-1]
            if normalize:
                self._sizes["output_statistics"] = self._statistics("targets", channels)
        elif "classes" in options:
            self._sizes["classes"] = self._count("targets", "classes", classes)
        elif model is not LanguageModel:
            has_columns = targets.ndim == 2
            self._sizes["numbers"] = targets.shape[1] if has_columns else None
            self._sizes["output_statistics"] = self._statistics("targets", has_columns)
        is_line = model is LanguageModel or (
            is_operator and isinstance(self._sizes["points"], int)
        )
        if causal and (not is_line or self._sizes.get("grid") == "periodic"):
            raise InputError(
                "causal=True is for a target at each token of a line, of functions with "
                "grid=midpoint; drop it."
            )
        if causal is None and is_line and self.lengths("training") is None:
            check_later_inputs(*self._learned_data.columns.values())

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
        """Reads arrays by name from a file or folder (how-to/own-data.md): `inputs` and
        `targets`; `points`, `weights`, `mask` and `groups` if they exist; and arrays of another
        part, such as `validation_inputs` and `test_points`. A group may be in one part only.

        **Arguments:**

        - `inputs`, `targets`: the names of the arrays. Several names become channels. Inputs
          `[samples, columns]` are series, or with `channels` unrelated columns, each in its own
          unit. Texts as targets are classes.
        - `groups`: the name of the array; default: "groups".
        - `dimensions`: the order of the dimensions in a file that names them.
        - `labels`: the texts of the classes, in their order; default: all texts, sorted, which
          are printed and saved by a run.
        - `parameters`: the names of arrays `[samples]` or `[samples, k]`, such as a viscosity,
          which become constant channels of the inputs, see `with_parameters`. Targets at
          points then have an axis of channels too. Default: "parameters", if it exists.
        - `options`: of `Arrays`.
        """
        roles: dict[str, Any] = {"inputs": inputs, "targets": targets}
        roles["groups"] = groups or "groups"
        sources = array_names(roles)
        names = {role: x if isinstance(x, str) else role for role, x in roles.items()}
        if parameters is not None:
            roles |= {x: x for x in parameter_names(parameters)}
        stored = stored_arrays(path, roles, dimensions)
        if find_array(path, stored, names["inputs"]).dimensions[-1:] == ("channels",):
            options.setdefault("channels", True)
        held_out_groups = {f"{prefix}{names['groups']}" for prefix in PREFIXES.values()}
        if groups is not None or held_out_groups & stored.keys():
            find_array(path, stored, names["groups"])
        names |= {name: name for name in _DOMAIN}
        optional = ("groups", *_DOMAIN)
        parts = read_named_parts(path, stored, names, optional, parameters, options, sources)
        all_targets = {part: columns["targets"] for part, columns in parts.items()}
        all_targets, labels = number_labels(path, all_targets, labels)
        if labels is not None and all_targets["training"].ndim == 1:
            options.setdefault("classes", len(labels))
        channels = options.get("channels", False)
        for part, columns in parts.items():
            x = columns["inputs"]
            y = all_targets[part]
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
        group_labels = {part: columns.pop("groups") for part, columns in parts.items()}
        _check_apart(path, names["groups"], group_labels)
        training = parts.pop("training")
        options |= {part: tuple(columns.values()) for part, columns in parts.items()}
        task = cls(**training, groups=group_labels["training"], **options)
        task.labels = labels
        return task

    @property
    def sizes(self) -> dict[str, Any]:
        return self._sizes

    @property
    def tokens_per_sample(self) -> int:
        if "points" in self._sizes:
            return self._learned_data.tokens
        if "image_shape" in self._sizes:
            rows, columns, _ = self._sizes["image_shape"]
            return rows // self.patch * (columns // self.patch)
        return self.data["training"][0].shape[1]

    def with_tokens(self, tokens: int | tuple[int, ...]) -> "Arrays":
        """The functions on a coarser grid with `tokens` points along each axis; see
        `FunctionData.coarser`."""
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
        domains = [(x.points, x.weights) for x in self.functions.values()]
        return checksum_of_all((samples, domains)) if self._sizes.get("fields") else samples

    def lengths(self, part: str) -> np.ndarray | None:
        return self.functions[part].lengths

    def select(self, part: str, samples: np.ndarray) -> Batch:
        inputs, targets = (x[samples] for x in self.data[part])
        if "image_shape" in self._sizes:
            inputs = inputs.reshape(len(inputs), *self._sizes["image_shape"])
        domain = self.functions[part].domain(samples)
        if self.model is OperatorModel:
            targets = at_points(targets, domain)
        return Batch(at_points(inputs, domain), targets)

    def _set(self, functions: dict[str, FunctionData]) -> None:
        self.functions = functions
        self.data = {part: tuple(data.columns.values()) for part, data in functions.items()}

    @property
    def _learned_data(self) -> FunctionData:
        """The training part, or the validation part if that holds all samples."""
        return self.functions["validation" if self.holds_out_all else "training"]

    def _statistics(self, name: str, channels: bool) -> Statistics:
        return self._learned_data.statistics(name, channels=channels)

    def _check_norms(self) -> None:
        for part, data in self.functions.items():
            data.check_norms(part, "targets", data.columns["targets"])

    def _count(self, column: str, name: str, size: int | None) -> int:
        """The largest integer of a column plus one, or the `size` that option `name` sets."""
        arrays = [data.columns[column] for data in self.functions.values() if len(data)]
        least = min(x.min() for x in arrays)
        most = max(x.max() for x in arrays)
        lowest = UNCOUNTED if (column, name) == ("targets", "vocabulary") else 0
        if least < lowest or (size is not None and most >= size):
            raise InputError(
                f"{column} have the integers {least} to {most}; pass integers from {lowest}"
                + (f" to {name} - 1 = {size - 1}." if size else ".")
            )
        return size or int(most) + 1


def _model_of(
    axes: tuple[int, ...], inputs: np.ndarray, targets: np.ndarray, *, may_be_images: bool
) -> Callable[..., Model]:
    """The model that learns these arrays; `axes` are the axes of the points in the inputs."""
    types = "".join("f" if x.dtype.kind == "f" else "i" for x in (inputs, targets))
    channels = inputs.ndim - 1 - len(axes)
    # Targets at the points, but without the axis of channels, are not numbers of a sample.
    are_numbers = (
        targets.ndim in (1, 2) and targets.shape[1:] != axes and not _is_one_hot(targets)
    )
    if types == "ff" and axes and targets.shape[1 : targets.ndim - channels] == axes:
        return OperatorModel
    if types == "ff" and axes and are_numbers:
        return FunctionRegressor
    if types == "fi" and axes and targets.ndim == 1:
        is_image = may_be_images and len(axes) in (2, 3)
        return ImageClassifier if is_image else FunctionClassifier
    if types == "ii" and len(axes) == 1 and targets.shape[1:] == axes:
        return LanguageModel
    if types == "ii" and len(axes) == 1 and targets.ndim == 1:
        return SequenceClassifier
    if types == "if" and len(axes) == 1 and are_numbers:
        return SequenceRegressor
    raise InputError(
        f"inputs {inputs.dtype}{[*inputs.shape]} and targets {targets.dtype}"
        f"{[*targets.shape]} do not fit; pass functions as real numbers of one shape (with "
        "channels=True if both have a last axis of channels), images as real numbers [samples, "
        "rows, columns], tokens as integers, classes as integers [samples] (targets.argmax(1) "
        "if they are one-hot), and numbers of a sample as real numbers [samples] or [samples, "
        "numbers]."
    )


def _is_one_hot(targets: np.ndarray) -> bool:
    """Whether real targets are classes, each a row of zeros with a one."""
    if targets.ndim != 2 or targets.shape[1] == 1:
        return False
    return bool(np.isin(targets, (0, 1)).all() and (targets.sum(1) == 1).all())


@checked
def with_parameters(
    values: Float[np.ndarray, "samples ..."],
    parameters: Shaped[np.ndarray, " samples"] | Shaped[np.ndarray, "samples k"],
    *,
    channels: bool = False,
) -> Float[np.ndarray, "samples ..."]:
    """Appends parameters of each sample as constant channels, `[samples, *points, channels +
    k]`.

    **Arguments:**

    - `values`: `[samples, *points]`, or `[samples, *points, channels]` with `channels`.
    - `parameters`: `[samples]` or `[samples, k]`, such as a viscosity.
    """
    if not channels:
        values = values[..., None]
    constant = parameters.reshape(len(parameters), *(1,) * (values.ndim - 2), -1)
    constant = np.broadcast_to(constant, (*values.shape[:-1], constant.shape[-1]))
    return np.concatenate([values, constant], axis=-1, dtype=values.dtype)


def _check_apart(path: str | Path, name: str, groups: dict[str, np.ndarray | None]) -> None:
    """**Raises:** `InputError` for a group that is in two parts of a file."""
    for (part, x), (other, y) in itertools.combinations(groups.items(), 2):
        shared = [] if x is None or y is None else np.intersect1d(x, y)
        if len(shared):
            raise InputError(
                f"data.path={path}: {shown(shared[0].item())} of {other}_{name} is also in the "
                f"{part} part; keep each group in one part."
            )
