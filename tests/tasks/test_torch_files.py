import numpy as np
import pytest
from tasks.torch_files import torch_file

import ide_transformer as ide
from ide_transformer.tasks.darcy import torch_arrays


ARRAYS = {
    "x": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "y": np.asfortranarray(np.arange(6).reshape(2, 3) % 2 == 0),
}


def test_tensors_of_any_strides():
    found = torch_arrays(torch_file(ARRAYS), "a file")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", "not a zip file"),
        (torch_file(ARRAYS, kind="os system"), "it names os.system, which is no tensor"),
        (torch_file(ARRAYS, strides=[12, 4, 2]), "beyond the end of its storage"),
        (torch_file(ARRAYS, strides=[-1, 4, 1]), r"strides \(-1, 4, 1\)"),
        (torch_file(ARRAYS, short=8), "numbers in the place of 24"),
        (torch_file({}), "no dictionary of tensors"),
        (torch_file(ARRAYS)[:300], "not a zip file"),
    ],
)
def test_files_that_hold_anything_else(content, message):
    with pytest.raises(ide.InputError, match=f"^a file is no file of tensors .*{message}"):
        torch_arrays(content, "a file")


@pytest.mark.heavy
def test_what_torch_reads_is_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    random = torch.Generator().manual_seed(0)
    whole = torch.randn(5, 4, 6, generator=random)
    kinds = {"x": whole > 0, "y": whole.transpose(0, 2), "z": whole.double()[1:, ::2]}
    kinds |= {"n": torch.arange(7), "h": whole.half()}
    torch.save(kinds, tmp_path / "tensors.pt")
    found = torch_arrays((tmp_path / "tensors.pt").read_bytes(), "tensors.pt")
    for name, tensor in kinds.items():
        assert found[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.heavy
def test_the_published_files_are_read_as_by_torch(tmp_path):
    import io
    import zipfile

    from ide_transformer.tasks import darcy

    torch = pytest.importorskip("torch")
    try:
        contents = darcy.published_files(None)
    except ide.InputError as error:
        pytest.skip(str(error))
    for content in contents:
        expected = torch.load(io.BytesIO(content), weights_only=True)
        found = torch_arrays(content, "a file")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(found[name], tensor.numpy())
    assert zipfile.is_zipfile(io.BytesIO(contents[0]))
