from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..arguments import PositiveInt
from ..models import AbstractModel, ImageClassifier
from .images import LabelledImages, digits, idx_folder
from .losses import Batch
from .task import AbstractTask, in_passes, spread


class ClassificationTask(AbstractTask):
    """Predict the class of an image, which has a number of patches."""

    configurable: ClassVar[bool] = False
    model: ClassVar[type[AbstractModel]] = ImageClassifier
    held_out_name: ClassVar[str] = "test"

    def __init__(self, train: LabelledImages, test: LabelledImages, *, patches: int):
        self.train = train
        self.test = test
        self.patches = patches

    @classmethod
    def in_patches(
        cls, sets: tuple[LabelledImages, LabelledImages], patch: int
    ) -> "ClassificationTask":
        """The task of a training set and a test set, in patches of that side in pixels."""
        train, test = sets
        rows, columns = train.images.shape[1:3]
        return cls(train, test, patches=(rows // patch) * (columns // patch))

    @property
    def sizes(self) -> dict[str, Any]:
        classes = int(max(self.train.labels.max(), self.test.labels.max())) + 1
        return {"image_shape": self.train.images.shape[1:], "classes": classes}

    @property
    def tokens_per_sample(self) -> int:
        return self.patches

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The next samples of a new random order in each pass over the training set."""
        chosen = in_passes(step, size, len(self.train.labels), seed)
        return Batch(self.train.images[chosen], self.train.labels[chosen])

    def held_out(self, size: int, samples: int | None = None) -> Iterator[Batch]:
        chosen = spread(np.arange(len(self.test.labels)), samples)
        for first in range(0, len(chosen), size):
            part = chosen[first : first + size]
            yield Batch(self.test.images[part], self.test.labels[part])


class Digits(ClassificationTask):
    """Handwritten digits of 8 by 8 pixels; see `digits`."""

    configurable: ClassVar[bool] = True

    @classmethod
    def build(cls, patch: PositiveInt) -> ClassificationTask:
        return cls.in_patches(digits(), patch)


class MNIST(ClassificationTask):
    """Handwritten digits of 28 by 28 pixels, from a folder; see `idx_folder`."""

    configurable: ClassVar[bool] = True

    @classmethod
    def build(cls, path: Path, patch: PositiveInt) -> ClassificationTask:
        return cls.in_patches(idx_folder(path), patch)


class FashionMNIST(MNIST):
    """Pieces of clothing in the files and sizes of MNIST."""
