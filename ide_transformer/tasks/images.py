"""Tasks that classify images, and readers of their files."""

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

    def select(self, samples: np.ndarray) -> "LabelledImages":
        return LabelledImages(self.images[samples], self.labels[samples])


class ClassificationTask(AbstractDataSet):
    """Predict the class of an image, whose tokens are square patches of pixels.

    **Arguments:**

    - `train`, `test`: the published training and test set.
    - `patch`: the side of a patch in pixels.
    - `validation`: the fraction of the training set to hold out at random, the same for every
      run; 1 for all of it.
    - `shift`: move each training image at random by up to this many pixels along each axis,
      repeating its edge.
    - `flip`: mirror half of the training images at random, left to right.
    - `standardize`: shift and scale pixels so that training pixels have mean 0 and standard
      deviation 1.
    """

    configurable: ClassVar[bool] = False
    may_hold_out_all = True
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
        num_images = len(train.labels)
        num_training = num_images - round(validation * num_images)
        self.holds_out_all = validation == 1
        if not self.holds_out_all and not 0 < num_training < num_images:
            raise InputError(
                f"data.validation={validation} leaves {num_training} of {num_images} images to "
                "learn; set a fraction that leaves some for training and validation."
            )
        order = np.random.default_rng(0).permutation(num_images)
        self.data = {
            "training": train.select(np.sort(order[:num_training])),
            "validation": train.select(np.sort(order[num_training:])),
            "test": test,
        }
        if standardize:
            pixels = self.data["validation" if self.holds_out_all else "training"].images
            mean = pixels.mean()
            std = pixels.std()
            for part, x in self.data.items():
                self.data[part] = x._replace(images=(x.images - mean) / std)
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
        """The images resampled to another number of patches, with the same size of a patch and
        the same proportions."""
        other = copy.copy(self)
        grid = grid_of_patches(tokens, self.data["test"].images.shape[1:3])
        other.size = grid[0] * self.patch, grid[1] * self.patch
        return other

    def batch(self, step: int, size: int, seed: int) -> Batch:
        training = self.data["training"]
        images, labels = training.select(in_passes(step, size, len(training.labels), seed))
        random = np.random.default_rng([seed, step])
        if self.flip:
            mirrored = random.random(size) < 0.5
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        if self.shift:
            shifts = random.integers(-self.shift, self.shift + 1, (size, 2))
            rows, columns = images.shape[1:3]
            row = np.clip(np.arange(rows) - shifts[:, :1], 0, rows - 1)
            column = np.clip(np.arange(columns) - shifts[:, 1:], 0, columns - 1)
            sample = np.arange(size)[:, None, None]
            images = images[sample, row[:, :, None], column[:, None, :]]
        return Batch(self._resample(images), labels)

    def select(self, part: str, samples: np.ndarray) -> Batch:
        images, labels = self.data[part].select(samples)
        return Batch(self._resample(images), labels)

    def _resample(self, images: np.ndarray) -> np.ndarray:
        if images.shape[1:3] == self.size:
            return images
        rows, columns = map(_resampling_matrix, images.shape[1:3], self.size)
        return np.einsum("ik,bklc,jl->bijc", rows, images, columns, optimize=True)


@ft.cache
def _resampling_matrix(old: int, new: int) -> np.ndarray:
    """Cubic interpolation, `[new, old]`; averages if `new` is smaller."""
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
    """Pictures of clothing in files like MNIST's; see `MNIST`."""


def digits() -> tuple[LabelledImages, LabelledImages]:
    """scikit-learn's 1,797 handwritten digits of 8 by 8 pixels, from 0 to 1: a training and a
    test set. The test set is a fixed fifth with the same proportions of the classes."""
    require("sklearn", "train", "the images of data.name=digits come with")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = cast(Any, load_digits(return_X_y=True))
    images = (pixels / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    split = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    train, test, train_labels, test_labels = map(np.asarray, split)
    return LabelledImages(train, train_labels), LabelledImages(test, test_labels)


def idx_folder(path: str | Path) -> tuple[LabelledImages, LabelledImages]:
    """The training and test set in a folder of four IDX files like MNIST's, gzipped or not.
    Pixels are scaled to [0, 1].

    **Raises:** `InputError` if a file is missing or damaged, or numbers of images and labels
    differ.
    """
    sets = []
    for part in ("train", "t10k"):
        images = _read_idx(Path(path), f"{part}-images", 3)[..., None].astype(np.float32) / 255
        labels = _read_idx(Path(path), f"{part}-labels", 1).astype(np.int32)
        if len(images) != len(labels):
            raise InputError(
                f"data.path={path}: {part} has {len(images)} images but {len(labels)} labels; "
                "use files of one data set."
            )
        sets.append(LabelledImages(images, labels))
    return sets[0], sets[1]


def _read_idx(folder: Path, stem: str, dimensions: int) -> np.ndarray:
    files = sorted(x for x in folder.glob(f"{stem}*idx{dimensions}-ubyte*") if x.is_file())
    if not files:
        present = ", ".join(sorted(f.name for f in folder.glob("*"))[:8]) or "nothing"
        raise InputError(
            f"data.path={folder}: no file {stem}-idx{dimensions}-ubyte or "
            f"{stem}-idx{dimensions}-ubyte.gz; the folder has {present}."
        )
    file = files[0]
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            # Two zero bytes, 8 for unsigned bytes, the number of dimensions; then the shape.
            magic, *shape = struct.unpack(f">4s{dimensions}I", stream.read(4 + 4 * dimensions))
            content = stream.read()
            if magic != bytes([0, 0, 8, dimensions]) or len(content) != math.prod(shape):
                raise ValueError(
                    f"it is cut off, or not an IDX file of bytes in {dimensions} dimensions"
                )
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise InputError(f"{file} is damaged or cannot be read: {error}.") from None
    return np.frombuffer(content, np.uint8).reshape(shape)
