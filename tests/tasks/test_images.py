import itertools

import numpy as np
import pytest
from tasks.files import write_idx

import ide_transformer as ide
from ide_transformer import tasks


def test_every_image_is_drawn_once_an_epoch():
    train, test = tasks.digits()
    assert train.images.shape == (1437, 8, 8, 1) and test.images.shape == (360, 8, 8, 1)
    assert abs(train.images.mean()) < 1e-5 and abs(train.images.std() - 1) < 1e-5
    assert (np.bincount(test.labels) >= 34).all()
    task = tasks.ClassificationTask(train, test, patch=2)
    size, number = 50, len(task.data["training"].labels)
    batches = [task.batch(step, size, seed=1) for step in range(2 * number // size)]
    drawn = np.concatenate([batch.inputs for batch in batches])[: 2 * number]
    first = {image.tobytes() for image in drawn[:number]}
    held_out = {image.tobytes() for batch in task.held_out(size) for image in batch.inputs}
    assert len(held_out) == 144 and not first & held_out
    assert first | held_out == {image.tobytes() for image in train.images}
    assert not (drawn[:100] == drawn[number : number + 100]).all()


def test_resampled_images_are_the_same_function():
    row, column = np.meshgrid(*2 * [(np.arange(16) + 0.5) / 16], indexing="ij")
    images = (1 + row - 2 * column)[None, ..., None].astype(np.float32)
    part = tasks.LabelledImages(np.repeat(images, 10, axis=0), np.zeros(10, np.int32))
    task = tasks.ClassificationTask(part, part, patch=2)
    for patches in (16, 256):
        found = task.on(ide.Mesh(tokens=patches)).batch(0, 1, 0).inputs[0, ..., 0]
        side = len(found)
        row, column = np.meshgrid(*2 * [(np.arange(side) + 0.5) / side], indexing="ij")
        inside = (slice(side // 4, -side // 4),) * 2
        assert np.abs(found - (1 + row - 2 * column))[inside].max() < 1e-5


def test_images_that_are_moved_and_mirrored():
    sets, options = tasks.digits(), dict(shift=1, flip=True)
    plain = tasks.ClassificationTask(*sets, patch=2).batch(3, 16, seed=0)
    moved = tasks.ClassificationTask(*sets, patch=2, **options).batch(3, 16, seed=0)
    assert (plain.targets == moved.targets).all()
    found = set()
    for before, after in zip(plain.inputs[..., 0], moved.inputs[..., 0], strict=True):
        wide = {mirrored: np.pad(before[:, ::mirrored], 1, "edge") for mirrored in (1, -1)}
        places = itertools.product(wide, range(3), range(3))
        same = [x for x in places if (wide[x[0]][x[1] :, x[2] :][:8, :8] == after).all()]
        assert same
        found.update(same)
    assert {x[0] for x in found} == {1, -1} and len(found) > 6


def test_idx_folders(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (10, 4, 6))
    for part, number in (("train", 10), ("t10k", 4)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", drawn[:number])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(number) % 3)
    train, test = tasks.idx_folder(tmp_path)
    assert test.labels.tolist() == [0, 1, 2, 0]
    standardized = (drawn - drawn.mean()) / drawn.std()
    np.testing.assert_allclose(train.images, standardized[..., None], atol=1e-5)
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "t10k-labels-idx1-ubyte"
    content = images.read_bytes()
    for damaged, message in ((content[:-5], "cut off"), (b"GIF89a" + content, "IDX file")):
        images.write_bytes(damaged)
        with pytest.raises(ide.InputError, match=message):
            tasks.idx_folder(tmp_path)
    images.write_bytes(content)
    write_idx(labels, np.zeros(3))
    with pytest.raises(ide.InputError, match="4 images but 3 labels"):
        tasks.idx_folder(tmp_path)
