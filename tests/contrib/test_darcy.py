"""Darcy's equation: parts, other grids, and files of tensors, read without running code."""

import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib
from ide_transformer.contrib.darcy import torch_arrays
from tests.tasks.files import darcy_folder, torch_file


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("darcy")
    return folder, darcy_folder(folder)


def test_parts_and_normalisation(published):
    folder, parts = published
    task = contrib.Darcy(folder, samples=20)
    y = parts["train_16"].reshape(120, 256)
    x = (y > 0).astype(np.float32)
    batches = [task.batch(step, 10, seed=3) for step in range(2)]
    targets = np.concatenate([batch.targets.values for batch in batches])
    np.testing.assert_array_equal(np.sort(targets, axis=0), np.sort(y[:20], axis=0))
    held_out = next(task.held_out(200))
    np.testing.assert_array_equal(held_out.targets.values, y[20:])
    expected = (x[20:] - x[:20].mean()) / x[:20].std()
    np.testing.assert_allclose(held_out.inputs.values, expected, rtol=1e-5)
    (test,) = task.held_out(200, part="test")
    assert test.targets.values.shape == (4, 256) and test.inputs.domain.weights is None


def test_a_finer_grid_for_the_test_alone(published):
    folder, parts = published
    fine = contrib.Darcy(folder, samples=20).on(ide.Mesh(tokens=32))
    (batch,) = fine.held_out(8, part="test")
    np.testing.assert_array_equal(batch.targets.values, parts["test_32"].reshape(4, 1024))
    domain = batch.inputs.domain
    np.testing.assert_allclose(domain.points[33], [1 / 32, 1 / 32])
    assert domain.grid == (32, 32) and fine.parts == ("test",)
    with pytest.raises(ide.InputError, match=r"model\.context=32"):
        fine.batch(0, 4, 0)


ARRAYS = {
    "x": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "y": np.asfortranarray(np.arange(6).reshape(2, 3) % 2 == 0),
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch_file(ARRAYS, kind="os system"), "os.system"),
        (torch_file(ARRAYS, strides=[12, 4, 2]), "storage"),
        (torch_file(ARRAYS, strides=[-1, 4, 1]), r"strides \(-1, 4, 1\)"),
        (torch_file(ARRAYS, short=8), "in a storage of 22"),
    ],
)
def test_files_that_hold_anything_else(content, message):
    with pytest.raises(ide.InputError, match=f"^a file .*{message}"):
        torch_arrays(content, "a file")


def test_a_file_larger_than_the_memory(monkeypatch):
    monkeypatch.setenv("IDE_TRANSFORMER_MEMORY", str(1600 / 2**30))
    with pytest.raises(ide.InputError, match=r"^a file .*IDE_TRANSFORMER_MEMORY"):
        torch_arrays(torch_file({"x": np.zeros(400, np.float32)}), "a file")


@pytest.mark.heavy
def test_what_torch_reads_is_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    random = torch.Generator().manual_seed(0)
    normal = torch.randn(5, 4, 6, generator=random)
    kinds = {"x": normal > 0, "y": normal.transpose(0, 2), "z": normal.double()[1:, ::2]}
    kinds |= {"n": torch.arange(7), "h": normal.half()}
    torch.save(kinds, tmp_path / "tensors.pt")
    arrays = torch_arrays((tmp_path / "tensors.pt").read_bytes(), "a file")
    assert arrays.keys() == kinds.keys()
    for name, tensor in kinds.items():
        assert arrays[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(arrays[name], tensor.numpy())
