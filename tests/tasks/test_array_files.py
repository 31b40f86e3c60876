"""Files of arrays: what is read, without code and within the memory, and what is refused."""

import contextlib
import io
import time
import zipfile

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray

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


KINDS = [*("f4", "f8", "f2", "i4", "u1", "i8", "?", "c8", "U3", "S2", "M8[s]", "O")]
SHAPES = [(12,), (12, 8), (12, 8, 2), (12, 4, 4), (12, 4, 4, 1), (12, 0), (0, 8), (7, 8), ()]
# Inputs and targets that fit each other.
PAIRS = [
    (("f4", (12, 8)), ("f8", (12, 8))),
    (("f8", (12, 4, 4)), ("f4", (12, 4, 4))),
    (("i4", (12, 8)), ("i8", (12, 8))),
    (("u1", (12, 8)), ("i4", (12,))),
    (("f4", (12, 4, 4)), ("i4", (12,))),
]
OPTIONS = {
    "channels": [True, False],
    "causal": [True, False, None],
    "grid": ["periodic", "midpoint", "gauss_legendre"],
    "validation": [0.3, 0.0, 1.0, 0.999],
    "test": [0.3, 0.0],
    "vocabulary": [2, 9],
    "classes": [2, 9],
    "patch": [1, 2, 7],
}


def any_array(random, kind, shape):
    """Numbers of this kind, some of them zero, huge, or none."""
    scale = random.choice([1.0, 1e30, 1e-30, 0.0], p=[0.85, 0.05, 0.05, 0.05])
    numbers = np.asarray(random.normal(size=shape) * scale)
    if kind in ("i4", "i8", "u1"):
        numbers = np.abs(2 * numbers)
    if random.random() < 0.1 and numbers.size:
        numbers.flat[0] = random.choice([np.nan, np.inf, -1.0])
    with np.errstate(all="ignore"):
        return numbers.astype(kind)


def any_file(random, folder):
    """A file or folder with arrays, perhaps with damaged bytes."""
    pair = PAIRS[random.integers(len(PAIRS))]
    kinds_and_shapes = dict(zip(("inputs", "targets"), pair, strict=True))
    further = {"points": ("f4", (8,)), "groups": ("U3", (12,)), "test_inputs": pair[0]}
    kinds_and_shapes |= {name: x for name, x in further.items() if random.random() < 0.1}
    arrays = {}
    for name, (kind, shape) in kinds_and_shapes.items():
        if random.random() < 0.15:
            kind = random.choice(KINDS)
        if random.random() < 0.15:
            shape = SHAPES[random.integers(len(SHAPES))]
        arrays[name] = any_array(random, kind, shape)
    form = random.integers(5)
    if form == 3:
        columns = [np.ravel(x)[:12] for x in arrays.values()]
        rows = [list(arrays), *zip(*columns, strict=False)]
        (folder / "a.csv").write_text("\n".join(",".join(map(str, x)) for x in rows))
    elif form == 4:
        numeric = {name: x for name, x in arrays.items() if x.dtype.kind in "fi" and x.size}
        with contextlib.suppress(ValueError):
            data = {
                name: ([f"axis{i}_{n}" for i, n in enumerate(x.shape)], x)
                for name, x in numeric.items()
            }
            xarray.Dataset(data).to_netcdf(folder / "a.nc", engine="scipy")
        if not (folder / "a.nc").exists():
            np.savez(folder / "a.npz", **arrays)
    elif form == 0:
        np.savez(folder / "a.npz", **arrays)
    elif form == 1:
        for name, x in arrays.items():
            np.save(folder / f"{name}.npy", x)
        return folder
    else:
        try:
            columns = {name: x.tolist() for name, x in arrays.items()}
            pq.write_table(pa.table(columns), folder / "a.parquet")
        except (pa.ArrowException, TypeError, ValueError):
            np.savez(folder / "a.npz", **arrays)
    (path,) = folder.iterdir()
    if random.random() < 0.3:
        content = bytearray(path.read_bytes())
        for place in random.integers(len(content), size=3):
            content[place] = random.integers(256)
        path.write_bytes(content[: random.integers(len(content)) if form else None])
    return path


@pytest.mark.heavy
def test_any_file_is_read_or_refused(tmp_path):
    """With any options: a sentence, or a task that has batches of finite numbers."""
    num_read, messages = 0, []
    for seed in range(200):
        random = np.random.default_rng(seed)
        (folder := tmp_path / str(seed)).mkdir()
        path = any_file(random, folder)
        names = [x for x in OPTIONS if random.random() < 0.15]
        options = {x: OPTIONS[x][random.integers(len(OPTIONS[x]))] for x in names}
        began = time.perf_counter()
        try:
            task = Arrays.build(path, **options)
        except ide.InputError as error:
            messages.append(str(error))
        else:
            num_read += 1
            batches = [
                *task.held_out(4),
                *([] if task.holds_out_all else [task.batch(0, 4, 0)]),
            ]
            for x in jax.tree.leaves((batches, task.repeated())):
                assert np.isfinite(x).all()
        assert time.perf_counter() - began < 5, seed
    assert num_read > 15 and len(messages) > 60
    assert not any("pickle" in x for x in messages)
