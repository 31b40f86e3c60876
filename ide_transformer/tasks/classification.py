from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..arguments import Fraction, PositiveInt
from ..errors import InputError
from ..models import AbstractImageClassifier, AbstractModel
from .images import LabelledImages, digits, idx_folder
from .losses import Batch
from .task import AbstractTask, Part, in_passes, spread


class ClassificationTask(AbstractTask):
    """Predict the class of an image, which has a number of patches.

    **Arguments:**

    - `train`, `test`: the sets as they are published.
    - `patches`: in an image.
    - `validation`: the fraction of the training set that is held out for validation, at random
      and always the same.

    **Raises:** `InputError` where one of the parts has no image.
    """

    configurable: ClassVar[bool] = False
    model: ClassVar[type[AbstractModel]] = AbstractImageClassifier

    def __init__(
        self,
        train: LabelledImages,
        test: LabelledImages,
        *,
        patches: int,
        validation: Fraction = 0.1,
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
        self.patches = patches

    @classmethod
    def in_patches(
        cls, sets: tuple[LabelledImages, LabelledImages], patch: int, validation: Fraction = 0.1
    ) -> "ClassificationTask":
        """The task of a training set and a test set, in patches of that side in pixels."""
        train, test = sets
        rows, columns = train.images.shape[1:3]
        patches = (rows // patch) * (columns // patch)
        return cls(train, test, patches=patches, validation=validation)

    @property
    def sizes(self) -> dict[str, Any]:
        classes = (
            int(max(part.labels.max() for part in (self.train, self.validation, self.test))) + 1
        )
        return {"image_shape": self.train.images.shape[1:], "classes": classes}

    @property
    def tokens_per_sample(self) -> int:
        return self.patches

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The next samples of a new random order in each pass over the training set."""
        chosen = in_passes(step, size, len(self.train.labels), seed)
        return Batch(*_chosen(self.train, chosen))

    def held_out(
        self, size: int, samples: int | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        images = self.test if part == "test" else self.validation
        chosen = spread(np.arange(len(images.labels)), samples)
        for first in range(0, len(chosen), size):
            yield Batch(*_chosen(images, chosen[first : first + size]))


def _chosen(part: LabelledImages, samples: np.ndarray) -> LabelledImages:
    return LabelledImages(part.images[samples], part.labels[samples])


class Digits(ClassificationTask):
    """Handwritten digits of 8 by 8 pixels; see `digits`."""

    configurable: ClassVar[bool] = True

    @classmethod
    def build(cls, patch: PositiveInt, validation: float = 0.1) -> ClassificationTask:
        return cls.in_patches(digits(), patch, validation)


class MNIST(ClassificationTask):
    """Handwritten digits of 28 by 28 pixels, from a folder; see `idx_folder`."""

    configurable: ClassVar[bool] = True

    @classmethod
    def build(
        cls, path: Path, patch: PositiveInt, validation: float = 0.1
    ) -> ClassificationTask:
        return cls.in_patches(idx_folder(path), patch, validation)


class FashionMNIST(MNIST):
    """Pieces of clothing in the files and sizes of MNIST."""
