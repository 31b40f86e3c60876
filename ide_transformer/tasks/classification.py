import copy
import functools as ft
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..arguments import Fraction, NonNegativeInt, PositiveInt, checked
from ..errors import InputError
from ..models import AbstractImageClassifier, Model
from ..models.image_model import grid_of_shape
from .images import LabelledImages, digits, idx_folder
from .losses import Batch
from .task import AbstractTask, Part, checksum_of_all, in_parts, in_passes


class ClassificationTask(AbstractTask):
    """Predict the class of an image, whose tokens are square patches of pixels.

    **Arguments:**

    - `train`, `test`: the sets as they are published.
    - `patch`: the side of a patch in pixels.
    - `validation`: the fraction of the training set that is held out for validation, at random
      and always the same.
    - `shift`: in training, move each image by up to so many pixels along each axis, at random;
      what comes in from outside is its edge.
    - `flip`: in training, mirror every second image, left to right, at random.

    **Raises:** `InputError` where one of the parts has no image.
    """

    configurable: ClassVar[bool] = False
    sized_by_context: ClassVar[bool] = False
    model: ClassVar[type[Model]] = AbstractImageClassifier

    def __init__(
        self,
        train: LabelledImages,
        test: LabelledImages,
        *,
        patch: PositiveInt,
        validation: Fraction = 0.1,
        shift: NonNegativeInt = 0,
        flip: bool = False,
    ):
        number = len(train.labels)
        kept = number - round(validation * number)
        if not 0 < kept < number:
            raise InputError(
                f"data.validation={validation}: of {number} images {kept} are left to learn; "
                "give a fraction that leaves some for both."
            )
        order = np.random.default_rng(0).permutation(number)
        self.train = _chosen(train, np.sort(order[:kept]))
        self.validation = _chosen(train, np.sort(order[kept:]))
        self.test = test
        self.patch = patch
        self.shift = shift
        self.flip = flip
        self.size: tuple[int, int] = train.images.shape[1:3]

    @classmethod
    def in_patches(
        cls,
        sets: tuple[LabelledImages, LabelledImages],
        patch: PositiveInt,
        patches: PositiveInt | None = None,
        **options: Any,
    ) -> "ClassificationTask":
        """The task of a training set and a test set, see `ClassificationTask`.

        **Arguments:**

        - `patches`: resample the images to so many; `None` for their own size.
        """
        task = cls(*sets, patch=patch, **options)
        return task if patches is None else task.with_tokens(patches)

    @property
    def sizes(self) -> dict[str, Any]:
        classes = (
            int(max(part.labels.max() for part in (self.train, self.validation, self.test))) + 1
        )
        return {"image_shape": (*self.size, self.train.images.shape[-1]), "classes": classes}

    @property
    def tokens_per_sample(self) -> int:
        rows, columns = self.size
        return (rows // self.patch) * (columns // self.patch)

    def with_tokens(self, tokens: int | tuple[int, int]) -> "ClassificationTask":
        """Resample the images to another number of patches of the same side in pixels.

        **Raises:** `InputError` for a number that is no grid of the shape of the images.
        """
        height, width = grid_of_shape(tokens, self.train.images.shape[1:3])
        other = copy.copy(self)
        other.size = (height * self.patch, width * self.patch)
        return other

    def fingerprint(self) -> str:
        """A checksum of all samples."""
        return checksum_of_all((self.train, self.validation, self.test))

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The next samples of a new random order in each pass over the training set."""
        chosen = in_passes(step, size, len(self.train.labels), seed)
        images, labels = _chosen(self.train, chosen)
        random = np.random.default_rng([seed, step])
        if self.flip:
            mirrored = random.random(size) < 0.5
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        if self.shift:
            images = _shifted(images, random.integers(-self.shift, self.shift + 1, (size, 2)))
        return Batch(self._resampled(images), labels)

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        images = self.test if part == "test" else self.validation
        for chosen in in_parts(range(len(images.labels)), size, samples):
            found, labels = _chosen(images, chosen)
            yield Batch(self._resampled(found), labels)

    def _resampled(self, images: np.ndarray) -> np.ndarray:
        """The images at the size of the task; separable, and a smaller one is a mean."""
        if images.shape[1:3] == self.size:
            return images
        rows, columns = map(_resampling, images.shape[1:3], self.size)
        return np.einsum("ik,bklc,jl->bijc", rows, images, columns, optimize=True)


def _chosen(part: LabelledImages, samples: np.ndarray) -> LabelledImages:
    return LabelledImages(part.images[samples], part.labels[samples])


@ft.cache
def _resampling(old: int, new: int) -> np.ndarray:
    """`[new, old]`: cubic, wider where the new image is smaller."""
    identity = jnp.eye(old, dtype=jnp.float32)
    return np.asarray(jax.image.resize(identity, (new, old), "cubic"))


def _shifted(images: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Each image moved by `by: [images, 2]` pixels; edges go on."""
    number, rows, columns, _ = images.shape
    row = np.clip(np.arange(rows) - by[:, :1], 0, rows - 1)
    column = np.clip(np.arange(columns) - by[:, 1:], 0, columns - 1)
    return images[np.arange(number)[:, None, None], row[:, :, None], column[:, None, :]]


class Digits(ClassificationTask):
    """Handwritten digits of 8 by 8 pixels; see `digits` and `ClassificationTask`."""

    configurable: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        patch: PositiveInt,
        validation: float = 0.1,
        patches: PositiveInt | None = None,
        shift: NonNegativeInt = 0,
        flip: bool = False,
    ) -> ClassificationTask:
        return cls.in_patches(
            digits(), patch, patches, validation=validation, shift=shift, flip=flip
        )


class MNIST(ClassificationTask):
    """Handwritten digits of 28 by 28 pixels, from a folder; see `idx_folder` and
    `ClassificationTask`."""

    configurable: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        path: Path,
        patch: PositiveInt,
        validation: float = 0.1,
        patches: PositiveInt | None = None,
        shift: NonNegativeInt = 0,
        flip: bool = False,
    ) -> ClassificationTask:
        return cls.in_patches(
            idx_folder(path), patch, patches, validation=validation, shift=shift, flip=flip
        )


class FashionMNIST(MNIST):
    """Pieces of clothing in the files and sizes of MNIST."""
