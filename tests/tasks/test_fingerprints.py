"""The checksum by which a run knows its data: of all of them, where they are all there."""

import numpy as np
import pytest
from training.small_run import config

from ide_transformer import tasks, training
from ide_transformer.tasks.classification import ClassificationTask
from ide_transformer.tasks.images import LabelledImages
from ide_transformer.training.folder import changed_data, new_folder


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


def test_a_run_of_an_earlier_release_knows_what_it_recorded(tmp_path):
    task = images()
    recorded = tasks.AbstractTask.fingerprint(task)
    settings = config(tmp_path / "text.txt")
    run = new_folder(settings, tmp_path / "runs", task.save, recorded)
    assert changed_data(run, task, task.fingerprint()) == []
    order = np.random.default_rng(0).permutation(2000)
    other = images(("train", order[-1]))  # of the validation part
    assert changed_data(run, other, other.fingerprint()) == ["its data"]
    now = new_folder(settings, tmp_path / "runs", task.save, task.fingerprint())
    assert changed_data(now, task, task.fingerprint()) == []
    assert training.RunFolder(now.path).data == task.fingerprint()
