"""Classify labelled images; reads the files they come in."""

import copy
import functools as ft
import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from ..arguments import FractionOrAll, NonNegativeInt, PositiveInt
from ..errors import InputError
from ..models import ImageClassifier
from ..models.images import grid_of_patches
from ..packages import require
from .losses import Batch
from .task import AbstractDataSet, in_passes


class LabelledImages(NamedTuple):
    """Images with labels: `images: [samples, rows, columns, channels]`, float32, `labels:
    [samples]`."""

    images: np.ndarray
    labels: np.ndarray

    def chosen(self, samples: np.ndarray) -> "LabelledImages":
        return LabelledImages(self.images[samples], self.labels[samples])


class ClassificationTask(AbstractDataSet):
    """Predict the class of an image, whose tokens are square patches of pixels.

    **Arguments:**

    - `train`, `test`: the sets as they are published.
    - `patch`: the side of a patch in pixels.
    - `validation`: the fraction of the training set that is held out at random, the same for
      every run; 1 for all of it.
    - `shift`: in training, move each image at random by up to this many pixels along each axis,
      and repeat its edge.
    - `flip`: in training, mirror half of the images, left to right, at random.
    - `standardize`: shift and scale all pixels so that the training pixels have mean 0 and
      deviation 1.
    """

    configurable: ClassVar[bool] = False
    holds_out_all = True
    sized_by_context = False
    model = ImageClassifier
    data: dict[str, LabelledImages]

    def __init__(
        self,
        train: LabelledImages,
        test: LabelledImages,
        *,
        patch: PositiveInt,
        validation: FractionOrAll = 0.1,
        shift: NonNegativeInt = 0,
        flip: bool = False,
        standardize: bool = False,
    ):
        number = len(train.labels)
        kept = number - round(validation * number)
        self.whole = validation == 1
        if not self.whole and not 0 < kept < number:
            raise InputError(
                f"data.validation={validation} leaves {kept} of {number} images to learn; give "
                "a fraction that leaves some for both."
            )
        order = np.random.default_rng(0).permutation(number)
        parts = train.chosen(np.sort(order[:kept])), train.chosen(np.sort(order[kept:])), test
        if standardize:
            pixels = parts[1 if self.whole else 0].images
            mean = pixels.mean()
            std = pixels.std()
            parts = [x._replace(images=(x.images - mean) / std) for x in parts]
        self.data = dict(zip(("training", "validation", "test"), parts, strict=True))
        self.patch = patch
        self.shift = shift
        self.flip = flip
        self.size = train.images.shape[1:3]

    @property
    def sizes(self) -> dict[str, Any]:
        labels = [part.labels for part in self.data.values() if len(part.labels)]
        classes = int(max(x.max() for x in labels)) + 1
        channels = self.data["test"].images.shape[-1]
        return {"image_shape": (*self.size, channels), "classes": classes}

    @property
    def tokens_per_sample(self) -> int:
        rows, columns = self.size
        return (rows // self.patch) * (columns // self.patch)

    def with_tokens(self, tokens: int | tuple[int, int]) -> "ClassificationTask":
        """The images resampled to another number of patches, with the patch and the proportions
        of the images unchanged."""
        other = copy.copy(self)
        grid = grid_of_patches(tokens, self.data["test"].images.shape[1:3])
        other.size = grid[0] * self.patch, grid[1] * self.patch
        return other

    def batch(self, step: int, size: int, seed: int) -> Batch:
        number = len(self.data["training"].labels)
        images, labels = self.data["training"].chosen(in_passes(step, size, number, seed))
        random = np.random.default_rng([seed, step])
        if self.flip:
            mirrored = random.random(size) < 0.5
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        if self.shift:
            by = random.integers(-self.shift, self.shift + 1, (size, 2))
            rows, columns = images.shape[1:3]
            row = np.clip(np.arange(rows) - by[:, :1], 0, rows - 1)
            column = np.clip(np.arange(columns) - by[:, 1:], 0, columns - 1)
            sample = np.arange(size)[:, None, None]
            images = images[sample, row[:, :, None], column[:, None, :]]
        return Batch(self._resampled(images), labels)

    def chosen(self, part: str, samples: np.ndarray) -> Batch:
        images, labels = self.data[part].chosen(samples)
        return Batch(self._resampled(images), labels)

    def _resampled(self, images: np.ndarray) -> np.ndarray:
        if images.shape[1:3] == self.size:
            return images
        rows, columns = map(_resampling, images.shape[1:3], self.size)
        return np.einsum("ik,bklc,jl->bijc", rows, images, columns, optimize=True)


@ft.cache
def _resampling(old: int, new: int) -> np.ndarray:
    """A cubic resampling matrix, `[new, old]`; a smaller image averages."""
    identity = jnp.eye(old, dtype=jnp.float32)
    return np.asarray(jax.image.resize(identity, (new, old), "cubic"))


class Digits(ClassificationTask):
    """Handwritten digits of 8 by 8 pixels, standardized; see `digits` and
    `ClassificationTask`."""

    configurable: ClassVar[bool] = True

    @classmethod
    def build(cls, **options: Any) -> ClassificationTask:
        return cls(*digits(), **{"standardize": True, **options})


class MNIST(ClassificationTask):
    """Handwritten digits of 28 by 28 pixels, standardized; see `idx_folder` and
    `ClassificationTask`."""

    configurable: ClassVar[bool] = True

    @classmethod
    def build(cls, path: str | Path, **options: Any) -> ClassificationTask:
        return cls(*idx_folder(path), **{"standardize": True, **options})


class FashionMNIST(MNIST):
    """Pieces of clothing in the files and sizes of MNIST."""


def digits() -> tuple[LabelledImages, LabelledImages]:
    """scikit-learn's 1,797 handwritten digits of 8 by 8 pixels, from 0 to 1: a training set,
    and a fifth for the test. The split is fixed and keeps the proportions of the classes."""
    require("sklearn", "train", "the images of data.name=digits come with")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = cast(Any, load_digits(return_X_y=True))
    images = (pixels / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    split = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    train, test, of_train, of_test = map(np.asarray, split)
    return LabelledImages(train, of_train), LabelledImages(test, of_test)


def idx_folder(path: str | Path) -> tuple[LabelledImages, LabelledImages]:
    """The training and test set in a folder with four IDX files like MNIST's, compressed or
    not, with pixels from 0 to 1; `InputError` if a file is missing, damaged, or does not fit
    the others."""
    sets = []
    for part in ("train", "t10k"):
        images = _read_idx(Path(path), f"{part}-images", 3)[..., None].astype(np.float32) / 255
        labels = _read_idx(Path(path), f"{part}-labels", 1).astype(np.int32)
        if len(images) != len(labels):
            raise InputError(
                f"data.path={path}: {part} has {len(images)} images but {len(labels)} labels; "
                "the files do not belong together."
            )
        sets.append(LabelledImages(images, labels))
    return sets[0], sets[1]


def _read_idx(folder: Path, stem: str, dimensions: int) -> np.ndarray:
    found = sorted(x for x in folder.glob(f"{stem}*idx{dimensions}-ubyte*") if x.is_file())
    if not found:
        present = ", ".join(sorted(f.name for f in folder.glob("*"))[:8]) or "nothing"
        raise InputError(
            f"data.path={folder}: no file {stem}-idx{dimensions}-ubyte or "
            f"{stem}-idx{dimensions}-ubyte.gz; the folder holds {present}."
        )
    file = found[0]
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            # Two zero bytes, 8 for unsigned bytes, the number of dimensions; then the shape.
            kind, *shape = struct.unpack(f">4s{dimensions}I", stream.read(4 + 4 * dimensions))
            if kind != bytes([0, 0, 8, dimensions]):
                raise ValueError(f"it is not an IDX file of bytes in {dimensions} dimensions")
            content = stream.read()
            if len(content) != math.prod(shape):
                raise ValueError(f"it is cut off, or too long, for its header {shape}")
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise InputError(f"{file} is damaged or cannot be read: {error}.") from None
    return np.frombuffer(content, np.uint8).reshape(shape)
