"""Samples of a user's own, from arrays."""

import copy
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from ..arguments import Fraction, PositiveInt, checked
from ..equation import PointRule, TokenDomain
from ..errors import InputError
from ..models import (
    Field,
    ImageClassifier,
    LanguageModel,
    Model,
    OperatorModel,
    SequenceClassifier,
)
from ..packages import require
from .losses import UNCOUNTED, Batch, CrossEntropy, InstanceCrossEntropy, RelativeError
from .points import domains
from .task import AbstractDataSet, Part, checksum_of_all


# Options that say something of the data which a model learns.
_USED = {
    OperatorModel: ("points", "weights", "grid", "channels"),
    SequenceClassifier: ("vocabulary", "classes"),
    LanguageModel: ("vocabulary",),
    ImageClassifier: ("classes",),
}


class Arrays(AbstractDataSet):
    """Predict the targets of samples that are arrays. Types and shapes say what is learned:

    | `inputs` | `targets` | by |
    |---|---|---|
    | real `[samples, *points(, channels)]` | real at the same points | `OperatorModel` |
    | integers `[samples, tokens]` | integers `[samples]`, classes | `SequenceClassifier` |
    | integers `[samples, tokens]` | integers of the same shape, -1: none | `LanguageModel` |
    | real `[samples, rows, columns(, channels)]` | integers `[samples]` | `ImageClassifier` |

    A token sees all others, or with `causal` those before it alone, as in a forecast.

    **Arguments:**

    - `points`: those of functions that are not on a grid, `[tokens]` or `[tokens, dimension]`;
      values are then `[samples, tokens]`.
    - `weights`: of these points in integrals, `[tokens]`; by default the parts of [0, 1], or of
      the square, that are nearest to each.
    - `validation`, `test`: the fractions of the samples that are held out, at random and always
      the same; or inputs and targets of that part. With 0 there is no such test part.
    - `grid`: of functions, see `FunctionInputs`; by default "periodic", and with `points`
      "midpoint", an interval.
    - `channels`: whether functions have a last axis of channels, of inputs and of targets,
      which may have another number of them.
    - `causal`: whether a token sees itself and those before it alone; for a target at each
      token of a line. `False` says that targets may be inputs of later tokens.
    - `vocabulary`, `classes`: by default as many as there are.
    - `patch`: the side of a patch of an image, in pixels.

    **Raises:** `InputError` for arrays that do not fit each other, numbers that are not finite,
    integers that are out of range, targets that a token sees among its inputs, and options that
    say nothing of such data.
    """

    # It depends on the arrays.
    model = Model
    _sizes: dict[str, Any]

    @checked
    def __init__(
        self,
        inputs: Shaped[np.ndarray, "samples ..."],
        targets: Shaped[np.ndarray, "_ ..."],
        points: Shaped[np.ndarray, "tokens ..."] | None = None,
        weights: Shaped[np.ndarray, " _"] | None = None,
        *,
        validation: Fraction | tuple[np.ndarray, np.ndarray] = 0.1,
        test: Fraction | tuple[np.ndarray, np.ndarray] = 0.0,
        grid: PointRule | None = None,
        channels: bool = False,
        causal: bool | None = None,
        vocabulary: PositiveInt | None = None,
        classes: PositiveInt | None = None,
        patch: PositiveInt = 2,
    ):
        self.patch, self.domains, self.causal = patch, None, bool(causal)
        self.data = _divided(inputs, targets, {"validation": validation, "test": test})
        shape = inputs.shape
        axes: tuple[int, ...] = shape[1 : inputs.ndim - channels]
        kinds = "".join(x.dtype.kind for x in self.data["training"]), inputs.ndim, targets.ndim
        at = targets.shape[1 : targets.ndim - channels]
        if kinds[0] == "ff" and axes and at == axes:
            self.loss, kind = RelativeError(), OperatorModel
            for part, (_, functions) in self.data.items():
                if zero := sum(not function.any() for function in functions):
                    raise InputError(
                        f"targets of {zero} {part} samples are zero everywhere; an error "
                        "relative to them has no meaning, leave them out."
                    )
            grid = grid or ("periodic" if points is None and not causal else "midpoint")
            if points is not None:
                axes = self._at_points(points, weights, axes, grid)
            self._sizes = {"points": axes[0] if len(axes) == 1 else axes, "grid": grid}
            self._sizes["fields"] = points is not None
            if channels:
                self._sizes |= {"channels": shape[-1], "output_channels": targets.shape[-1]}
        elif kinds in (("fi", 3, 1), ("fi", 4, 1)):
            self.loss, kind = CrossEntropy(), ImageClassifier
            self._sizes = {"image_shape": (*shape[1:], 1)[:3]}
            self._sizes["classes"] = self._number("classes", classes, 1)
        elif kinds == ("ii", 2, 1):
            self.loss, kind = CrossEntropy(), SequenceClassifier
            self._sizes = {"vocabulary": self._number("vocabulary", vocabulary, 0)}
            self._sizes["classes"] = self._number("classes", classes, 1)
        elif kinds == ("ii", 2, 2) and shape == targets.shape:
            self.loss, kind = InstanceCrossEntropy(), LanguageModel
            numbers = [self._number("vocabulary", vocabulary, column) for column in (0, 1)]
            self._sizes = {"vocabulary": max(numbers)}
        else:
            raise InputError(
                f"inputs {inputs.dtype}{[*shape]} and targets {targets.dtype}"
                f"{[*targets.shape]} do not fit; {_mend(inputs, targets)}."
            )
        given = {"points": points, "weights": weights, "grid": grid}
        given |= {"channels": channels or None, "vocabulary": vocabulary, "classes": classes}
        unused = [
            name for name, x in given.items() if x is not None and name not in _USED[kind]
        ]
        if unused:
            raise InputError(
                f"{' and '.join(unused)} say nothing of data for {kind.__name__}; drop them."
            )
        if weights is not None and points is None:
            raise InputError("weights are those of points; give these too.")
        own: Any = self
        own.model = kind
        if self._sizes.keys() == {"vocabulary"} or isinstance(self._sizes.get("points"), int):
            _check_order(self.data["training"], self._sizes.get("grid"), causal)
        elif causal:
            raise InputError("causal=True is for a target at each token of a line; drop it.")

    @classmethod
    def build(
        cls, path: str | Path, inputs: str = "inputs", targets: str = "targets", **options: Any
    ) -> "Arrays":
        """The arrays of an `.npz` file, a folder of `.npy` files or a `.parquet` table, by
        name: `inputs`, `targets`, and where they are there `points`, `weights`,
        `validation_inputs`, `validation_targets`, `test_inputs` and `test_targets`."""
        arrays, pair = _read(path), (inputs, targets)
        parts = {part: [f"{part}_{name}" for name in pair] for part in ("validation", "test")}
        parts = {part: names for part, names in parts.items() if arrays.keys() & set(names)}
        for name in sum(parts.values(), [*pair]):
            if name not in arrays:
                raise InputError(
                    f"data.path={path}: there is no array {name}, only {', '.join(arrays)}; "
                    "data.options.inputs and data.options.targets name others."
                )
        if both := [part for part in parts if options.get(part)]:
            raise InputError(
                f"data.{both[0]}={options[both[0]]}: {path} has {both[0]} samples of its own; "
                f"drop it or write data.{both[0]}=null, or drop the arrays of these."
            )
        options |= {part: tuple(arrays[x] for x in names) for part, names in parts.items()}
        at = arrays.get("points"), arrays.get("weights")
        return cls(arrays[inputs], arrays[targets], *at, **options)

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation", "test") if len(self.data["test"][0]) else ("validation",)

    @property
    def sizes(self) -> dict[str, Any]:
        return self._sizes

    @property
    def tokens_per_sample(self) -> int:
        shape = self.data["training"][0].shape[1:]
        if "image_shape" in self._sizes:
            return shape[0] // self.patch * (shape[1] // self.patch)
        return int(np.prod(shape[: len(shape) - ("channels" in self._sizes)]))

    def with_tokens(self, tokens: int | tuple[int, ...]) -> "Arrays":
        """Functions on a coarser grid, so many points along each axis: on a "periodic" one
        every so many of theirs, on a "midpoint" one the means between."""
        whole = self._sizes.get("points", ())
        axes, fewer = (x if isinstance(x, tuple) else (x,) for x in (whole, tokens))
        fewer = fewer * len(axes) if len(fewer) == 1 else fewer
        grid = None if self.domains else self._sizes.get("grid")
        fits = len(axes) == len(fewer) and not any(
            n % m for n, m in zip(axes, fewer, strict=True)
        )
        if grid not in ("periodic", "midpoint") or not fits:
            raise InputError(
                f"tokens={tokens}: of arrays, only functions on a periodic or midpoint grid "
                "have coarser ones, whose number of points divides theirs; for others evaluate "
                "on a file with these points, data.path=…, or write a task with with_tokens."
            )

        def coarse(x: np.ndarray) -> np.ndarray:
            for axis, (n, m) in enumerate(zip(axes, fewer, strict=True), 1):
                x = x.reshape(*x.shape[:axis], m, n // m, *x.shape[axis + 1 :])
                x = x.take(0, axis + 1) if grid == "periodic" else x.mean(axis + 1)
            return x

        other = copy.copy(self)
        other.data = {part: tuple(map(coarse, pair)) for part, pair in self.data.items()}
        other._sizes = {
            **self._sizes,
            "points": fewer if isinstance(whole, tuple) else fewer[0],
        }
        return other

    def fingerprint(self) -> str:
        """A checksum of all samples, and of their points and weights."""
        own = super().fingerprint()
        return own if self.domains is None else checksum_of_all((own, self.domains))

    def chosen(self, part: str, samples: np.ndarray) -> Batch:
        inputs, targets = (x[samples] for x in self.data[part])
        if "image_shape" in self._sizes:
            inputs = inputs.reshape(len(inputs), *self._sizes["image_shape"])
        if self.domains is None:
            return Batch(inputs, targets)
        return Batch(*map(Field, (inputs, targets), self.domains))

    def _at_points(
        self, points: Any, weights: Any, axes: tuple[int, ...], grid: str
    ) -> tuple[int, ...]:
        """The domains of functions at points; the shape of a grid of about so many."""
        points = points.reshape(len(points), -1).astype(np.float32)
        number, (least, most) = len(points), (points.min(), points.max())
        if least < 0 or most > 1:
            raise InputError(
                f"points reach from {least:g} to {most:g}; scale each axis to [0, 1]."
            )
        if axes != (number,):
            raise InputError(
                f"there are {number} points, and values {[*axes]} of a sample; all samples "
                "have the same points, [tokens] or [tokens, dimension], and a value at each."
            )
        if weights is not None and len(weights) != number:
            raise InputError(f"there are {number} points and {len(weights)} weights.")
        dimension = points.shape[1]
        period = (1.0,) * dimension if grid == "periodic" else None
        if weights is None:
            self.domains = domains(points, "quadrature", period)
        else:
            x, w = (jnp.asarray(x, jnp.float32) for x in (points, weights))
            self.domains = (TokenDomain(x, w, period=period),) * 2
        return (round(number ** (1 / dimension)),) * dimension

    def _number(self, name: str, given: int | None, column: int) -> int:
        """The number of different integers in the inputs (0) or the targets (1)."""
        arrays = [part[column] for part in self.data.values() if part[column].size]
        least, most = min(x.min() for x in arrays), max(x.max() for x in arrays)
        lowest = UNCOUNTED if column and name == "vocabulary" else 0
        if least < lowest or (given is not None and most >= given):
            raise InputError(
                f"{('inputs', 'targets')[column]} have the integers {least} to {most}; give "
                f"them from {lowest}" + (f" to {name} - 1 = {given - 1}." if given else ".")
            )
        return given or int(most) + 1


def _mend(inputs: np.ndarray, targets: np.ndarray) -> str:
    """Advice for arrays that do not fit each other."""
    kinds = inputs.dtype.kind == "f", targets.dtype.kind == "f"
    like, one = inputs.shape == targets.shape, targets.ndim == 1
    functions = all(kinds) and inputs.ndim > 2 and inputs.shape != targets.shape
    one_hot = targets.ndim == 2 and ((targets == 0) | (targets == 1)).all()
    mends = {
        "give functions as real numbers, .astype(float)": like and kinds[0] != kinds[1],
        "give classes as integers, targets.argmax(1)": (
            one_hot and not like and (targets.sum(1) == 1).all()
        ),
        "give classes as integers, targets.astype(int)": (
            one and kinds[1] and (targets == np.round(targets)).all()
        ),
        "no model here gives one real number for a sample: write a task of your own": (
            one and kinds[1]
        ),
        "give targets an axis of channels too, targets[..., None], and channels=True": (
            functions and inputs.shape[:-1] == targets.shape
        ),
        "give channels=True if the last axis has channels": (
            functions and inputs.shape[:-1] == targets.shape[:-1] and targets.ndim > 2
        ),
        "give images as real numbers, inputs / 255": one and not kinds[0] and inputs.ndim > 2,
        "give images, inputs.reshape(-1, rows, columns), or signals as images of one row, "
        "inputs[:, None], for model.kind=image_classifier model.patch=1": one
        and inputs.ndim == 2,
    }
    general = (
        "give functions, real numbers of one shape, or integers as targets, [samples] for "
        "classes"
    )
    return next((mend for mend, meant in mends.items() if meant), general)


def _check_order(pairs: tuple[np.ndarray, ...], grid: str | None, causal: bool | None) -> None:
    """Refuses targets that are inputs of later tokens where a token sees these."""
    if causal and grid == "periodic":
        raise InputError("causal=True: no point of grid=periodic is the first; give midpoint.")
    number, tokens = pairs[0].shape[:2]
    given, sought = (np.moveaxis(x.reshape(number, tokens, -1), -1, 0) for x in pairs)

    def shifted(k: int, samples: slice) -> bool:
        """Whether each channel of the targets is one of the inputs, k tokens later."""
        there = [y[samples, : tokens - k] for y in sought]
        return all(
            (known := y != UNCOUNTED).any()
            and any((y == x[samples, k:])[known].all() for x in given)
            for y in there
        )

    if causal is not None or shifted(0, slice(None)):
        return
    for k in range(1, (tokens + 1) // 2):
        # A few samples are enough for most shifts.
        if shifted(k, slice(8)) and shifted(k, slice(None)):
            raise InputError(
                f"targets are the inputs shifted by {k}, and each token sees all inputs, its "
                "target among them; for a forecast write causal=True, in YAML "
                "data.options.causal=true, and causal=False if a token may see them."
            )


def _divided(inputs: Any, targets: Any, held_out: dict[str, Any]) -> dict[str, Any]:
    """The parts of the samples, with real numbers in single precision."""
    whole = [_numbers("inputs", inputs), _numbers("targets", targets)]
    if len(inputs) != len(targets):
        raise InputError(f"inputs have {len(inputs)} samples, and targets {len(targets)}.")
    left, parts = np.random.default_rng(0).permutation(len(inputs)), {}
    for part, held in held_out.items():
        if isinstance(held, tuple):
            names = f"{part}_inputs", f"{part}_targets"
            parts[part] = tuple(map(_numbers, names, held))
            for name, x, like in zip(names, parts[part], whole, strict=True):
                if (x.shape[1:], x.dtype) != (like.shape[1:], like.dtype):
                    raise InputError(
                        f"{name} are {x.dtype}{[*x.shape]}, and those to learn {like.dtype}"
                        f"{[*like.shape]}."
                    )
            if (a := len(parts[part][0])) != (b := len(parts[part][1])):
                raise InputError(f"{names[0]} have {a} samples, and {names[1]} {b}.")
            continue
        number = round(held * len(inputs))
        chosen, left = np.sort(left[:number]), left[number:]
        parts[part] = tuple(x[chosen] for x in whole)
    parts["training"] = tuple(x[np.sort(left)] for x in whole)
    sizes = {part: len(x) for part, (x, _) in parts.items()}
    if not (sizes["training"] and sizes["validation"]):
        left_for = ", ".join(f"{n} for {part}" for part, n in sizes.items())
        raise InputError(
            f"{len(inputs)} samples leave {left_for}; give more, or other fractions "
            "(data.validation, data.test)."
        )
    return parts


def _numbers(name: str, x: np.ndarray) -> np.ndarray:
    """An array in single precision; `InputError` for what is no number."""
    if x.dtype.kind not in "fiu":
        raise InputError(f"{name} are {x.dtype}; give real numbers or integers.")
    with np.errstate(over="ignore"):
        changed = x.astype(np.float32 if x.dtype.kind == "f" else np.int32)
    if not np.isfinite(changed).all():
        sample = np.argwhere(~np.isfinite(changed))[0].tolist()
        raise InputError(
            f"{name}: the number at {sample} is {x[tuple(sample)]}, not finite in single "
            "precision."
        )
    if changed.dtype.kind == "i" and (changed != x).any():
        raise InputError(f"{name}: an integer is larger than {2**31 - 1}.")
    return changed


def _read(path: str | Path) -> dict[str, np.ndarray]:
    path = Path(path)
    if path.suffix == ".parquet":
        require("pyarrow", "datasets", f"data.path={path}: tables are read by")
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            table = parquet.read_table(path)
            return {name: np.array(table[name].to_pylist()) for name in table.column_names}
        if path.is_dir():
            return {x.stem: np.load(x, allow_pickle=False) for x in sorted(path.glob("*.npy"))}
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"data.path={path}: {error}; give an .npz file, a folder of .npy files or a "
            ".parquet table of numbers."
        ) from None
