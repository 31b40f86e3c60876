"""Files of arrays: what is read, without code and within the memory, and what is refused."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ide_transformer as ide
from ide_transformer import memory
from ide_transformer.tasks import Arrays
from ide_transformer.tasks.files import stored_arrays
from tests.running import run_here


RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=(20, 24))
PAIR = dict(inputs=VALUES, targets=VALUES)


def npz(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def test_what_unpacks_to_more_than_there_is_is_refused(tmp_path, monkeypatch):
    """A small archive may hold a large array; what is not asked for is not read."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in {**PAIR, "large": np.zeros(2**20)}.items():
            np.save(written := io.BytesIO(), array)
            archive.writestr(f"{name}.npy", written.getvalue())
    num_bytes = 2 * VALUES.size * (8 + 4 + 4)
    monkeypatch.setenv(memory.BOUND, str(num_bytes / 2**30))
    Arrays.build(tmp_path / "a.npz")
    with pytest.raises(ide.InputError, match=r"a\.npz .*IDE_TRANSFORMER_MEMORY"):
        Arrays.build(tmp_path / "a.npz", inputs="large", targets="large")
    pq.write_table(pa.table({"inputs": np.zeros(2**20)}), tmp_path / "a.parquet")
    with pytest.raises(ide.InputError, match=r"a\.parquet needs"):
        Arrays.build(tmp_path / "a.parquet", targets="inputs")
    monkeypatch.setenv(memory.BOUND, "much")
    with pytest.raises(ide.InputError, match="IDE_TRANSFORMER_MEMORY=much"):
        Arrays.build(tmp_path / "a.npz")


def test_tables_are_read_without_lists(tmp_path):
    """Of several pieces, with axes in axes, and texts as labels."""
    values, names = RANDOM.normal(size=(30, 4, 5)).astype(np.float32), [*"abc"] * 10
    fixed = pa.FixedSizeListArray.from_arrays(values[:, 0, :2].ravel(), 2)
    columns = {"inputs": values.tolist(), "targets": fixed, "groups": names}
    all_columns = pa.table({**columns, "flags": [True, False] * 15, "numbers": np.arange(30)})
    pq.write_table(all_columns, tmp_path / "a.parquet", row_group_size=7)
    arrays = {name: x.read() for name, x in stored_arrays(tmp_path / "a.parquet").items()}
    np.testing.assert_array_equal(arrays["inputs"], values)
    np.testing.assert_array_equal(arrays["targets"], values[:, 0, :2])
    assert arrays["groups"].tolist() == names and arrays["groups"].dtype.kind == "U"
    assert arrays["numbers"].tolist() == [*range(30)] and arrays["flags"].dtype == bool
    sizes = [x.numbers for x in stored_arrays(tmp_path / "a.parquet").values()]
    assert sizes == [600, 60, 30, 30, 30]


def test_all_samples_of_a_file_are_held_out(tmp_path):
    """A single sample is enough, and a file may say itself what is held out."""
    task = Arrays(VALUES[:1], VALUES[:1], validation=1.0)
    assert (
        task.holds_out_all
        and task.parts == ("validation",)
        and len(task.data["validation"][0]) == 1
    )
    parts = {f"{part}_{name}": VALUES[:3] for part in ("validation", "test") for name in PAIR}
    task = Arrays.build(npz(tmp_path, **PAIR, **parts), validation=1.0, test=0.0)
    assert not task.holds_out_all and {x: len(y[0]) for x, y in task.data.items()} == dict(
        training=20, validation=3, test=3
    )


def test_an_empty_path_is_not_the_current_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("the sea is wide and the night is long. " * 99)
    (tmp_path / "a.yaml").write_text("data: {name: text, path: ''}")
    output = run_here(capsys, "train", "a.yaml", expected=2)
    assert "a.yaml: data.path='': " in output
    output = run_here(capsys, "evaluate", "runs/a", "--text", "", expected=2)
    assert "argument --text: " in output
