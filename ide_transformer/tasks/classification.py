import functools as ft
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from .images import LabelledImages
from .task import AbstractTask, Batch, spread


class ClassificationTask(AbstractTask):
    """Tell the class of an image.

    **Arguments:**

    - `train`, `test`: labelled images.
    - `patches`: patches in an image.
    """

    held_out_name: ClassVar[str] = "test"

    def __init__(self, train: LabelledImages, test: LabelledImages, *, patches: int):
        self.train = train
        self.test = test
        self.patches = patches

    @property
    def classes(self) -> int:
        return int(max(self.train.labels.max(), self.test.labels.max())) + 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        rows, columns, channels = self.train.images.shape[1:]
        return rows, columns, channels

    @property
    def tokens_per_sample(self) -> int:
        return self.patches

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The next samples of a new random order in each pass over the training set."""
        number = len(self.train.labels)
        positions = np.arange(step * size, (step + 1) * size)
        chosen = np.concatenate(
            [
                _order(number, int(epoch), seed)[
                    positions[positions // number == epoch] % number
                ]
                for epoch in np.unique(positions // number)
            ]
        )
        return Batch(self.train.images[chosen], self.train.labels[chosen])

    def held_out(self, size: int, samples: int | None = None) -> Iterator[Batch]:
        chosen = spread(np.arange(len(self.test.labels)), samples)
        for first in range(0, len(chosen), size):
            part = chosen[first : first + size]
            yield Batch(self.test.images[part], self.test.labels[part])


@ft.lru_cache(maxsize=2)
def _order(number: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(number)
