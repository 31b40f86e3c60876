"""The checksum by which a run knows its data: of all of them, where they are all there."""

import numpy as np
import pytest

from ide_transformer.tasks import ClassificationTask, LabelledImages


def images(changed=None, samples=2000):
    """A task on images of which a pixel is changed, in a part and at a place."""
    random = np.random.default_rng(0)
    parts = {
        name: LabelledImages(
            random.normal(size=(number, 4, 4, 1)).astype(np.float32),
            random.integers(0, 3, number).astype(np.int32),
        )
        for name, number in (("train", samples), ("test", 8))
    }
    if changed is not None:
        name, place = changed
        parts[name].images[place, 0, 0, 0] += 1
    return ClassificationTask(**parts, patch=2)


@pytest.mark.parametrize("changed", [("train", 1999), ("train", 7), ("test", 3)])
def test_no_image_changes_without_a_word(changed):
    assert images().fingerprint() == images().fingerprint() != images(changed).fingerprint()
