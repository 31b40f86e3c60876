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
    - `shift`: each training image is moved by up to so many pixels along either axis.
    """

    held_out_name: ClassVar[str] = "test"

    def __init__(
        self, train: LabelledImages, test: LabelledImages, *, patches: int, shift: int = 0
    ):
        self.train = train
        self.test = test
        self.patches = patches
        self.shift = shift

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
        images = self.train.images[chosen]
        if self.shift:
            images = _shifted(images, self.shift, np.random.default_rng([seed, step, 1]))
        return Batch(images, self.train.labels[chosen])

    def held_out(self, size: int, samples: int | None = None) -> Iterator[Batch]:
        chosen = spread(np.arange(len(self.test.labels)), samples)
        for first in range(0, len(chosen), size):
            part = chosen[first : first + size]
            yield Batch(self.test.images[part], self.test.labels[part])


@ft.lru_cache(maxsize=2)
def _order(number: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(number)


def _shifted(images: np.ndarray, shift: int, random: np.random.Generator) -> np.ndarray:
    """Each image moved, with its lowest value (the background) moving in."""
    width = [(0, 0), (shift, shift), (shift, shift), (0, 0)]
    padded = np.pad(images, width, constant_values=images.min())
    samples, rows, columns, _ = images.shape
    offset = random.integers(0, 2 * shift + 1, (2, samples))
    row = offset[0][:, None] + np.arange(rows)
    column = offset[1][:, None] + np.arange(columns)
    return padded[np.arange(samples)[:, None, None], row[:, :, None], column[:, None, :]]
