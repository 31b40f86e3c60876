"""Files of arrays: what is read, without code, within the memory and by name, and what is
refused by one line."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray

import ide_transformer as ide
from ide_transformer import memory
from ide_transformer.tasks import Arrays, Trajectories
from ide_transformer.tasks.files import stored_arrays
from ide_transformer.training.setup import setup
from tests.running import run_here
from tests.tasks import bad_files as bad
from tests.tasks.bad_files import PAIR, RANDOM, VALUES, npz
from tests.training import stub


PATHS = {"trajectories": RANDOM.normal(size=(20, 5, 8)), "times": np.arange(5)}
OTHER_GRID = PATHS | {"grid": "periodic", "test_grid": "midpoint"}
OTHER_GRID |= {"test_trajectories": PATHS["trajectories"][:3] + 1}


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
    task = Arrays(VALUES[:1], VALUES[:1], validation=1.0)
    assert task.holds_out_all and task.parts == ("validation",)
    parts = {f"{part}_{name}": VALUES[:3] for part in ("validation", "test") for name in PAIR}
    task = Arrays.build(npz(tmp_path, **PAIR, **parts), validation=1.0, test=0.0)
    assert not task.holds_out_all
    assert {part: len(data[0]) for part, data in task.data.items()} == dict(
        training=20, validation=3, test=3
    )


def test_an_empty_path_is_not_the_current_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("the sea is wide and the night is long. " * 99)
    (tmp_path / "a.yaml").write_text("data: {name: text, path: ''}")
    output = run_here(capsys, "train", "a.yaml", expected=2)
    assert "a.yaml:1: data.path='': " in output
    output = run_here(capsys, "evaluate", "runs/a", "--text", "", expected=2)
    assert "argument --text: " in output


WHICH = r"an \.npz file, a folder of"
NAN = VALUES.copy()
NAN[3, 4] = NAN[5, 6] = np.nan
ROWS = ["a,b,targets", "1.5,2,0", "2.5,3,1"]
# What makes the file, and the error.
FILES = {
    "cut archive": (bad.cut(bad.arrays()), f"damaged, .*{WHICH}"),
    "no bytes": (bad.file_of("a.npz", b""), r"a\.npz: it is damaged"),
    "pickle": (bad.pickled, "inputs holds Python objects, which could run"),
    "missing": (lambda folder: folder / "a.npz", r"a\.npz: there is no such file"),
    "unknown": (bad.file_of("a.txt"), f"its kind is unknown.*{WHICH}"),
    # Values and shapes.
    "nan": (bad.arrays(inputs=NAN), r"inputs should be finite; 2 .* at \[3, 4\]"),
    "other shape": (bad.arrays(targets=VALUES[:, None]), "do not fit"),
    # Tables.
    "lists": (bad.unequal_lists, "column targets are not all of one length"),
    "a name twice": (bad.text("a,a,targets", *ROWS[1:]), "a, a, targets.* each column once"),
    "numbers for names": (bad.text(*ROWS[1:]), "first line is .*each column once"),
    "mixed": (bad.text(*ROWS, "x,1,1"), "column a has numbers and x in row 3"),
    "not UTF-8": (bad.file_of("a.csv", b"a,targets\n\xff,1\n"), "damaged, .*utf-8"),
    # Fields.
    "other codec": (bad.zarr(bad.metadata(compressor={"id": "base64"})), "codec base64"),
    "hidden codec": (bad.zarr(bad.hidden_pickle, 3), "attributes has the codec pickle"),
    "huge store": (bad.zarr(bad.metadata(shape=[10**6, 10**6])), memory.BOUND),
    "huge chunks": (bad.zarr(bad.metadata(chunks=[10**6, 10**6])), memory.BOUND),
}
HDF5 = {
    "cut HDF5": (bad.cut(bad.hdf5()), f"damaged, .*truncated.*{WHICH}"),
    "external link": (bad.hdf5(bad.linked), "inputs lies in another file"),
    "huge chunk": (bad.hdf5(bad.huge_chunk), memory.BOUND),
}
NEEDS_H5PY = pytest.mark.skipif(bad.h5py is None, reason="h5py is not installed")


def everything(folder):
    return {x: x.lstat().st_mtime_ns for x in folder.rglob("*")}


@pytest.mark.parametrize("name", [*FILES, *(pytest.param(x, marks=NEEDS_H5PY) for x in HDF5)])
def test_a_bad_file_is_one_line(tmp_path, monkeypatch, name):
    """No file is written, and nobody is told to let code run."""
    write, message = (FILES | HDF5)[name]
    path = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(memory.BOUND, "0.0625")
    before = everything(tmp_path)
    with pytest.raises(ide.InputError, match=message) as error:
        Arrays.build(path)
    assert "\n" not in str(error.value) and "allow_pickle" not in str(error.value)
    assert everything(tmp_path) == before


def build(task, folder, arrays, **options):
    return task.build(npz(folder, **arrays), **options)


@pytest.mark.parametrize(
    ("task", "name", "likely"),
    [
        (Trajectories, "point", "points"),
        (Trajectories, "val_trajectories", "validation_trajectories"),
        (Arrays, "valid_targets", "validation_targets"),
    ],
)
def test_a_name_that_is_nearly_right_is_refused(tmp_path, task, name, likely):
    arrays = PATHS if task is Trajectories else PAIR
    with pytest.raises(ide.InputError, match=f"array {name} .* {likely}"):
        build(task, tmp_path, arrays | {name: VALUES})


def test_other_names_are_told_and_coordinates_are_none(tmp_path, capsys):
    build(Arrays, tmp_path, PAIR | {"notes": VALUES})
    assert capsys.readouterr().err == f"data.path={tmp_path}/a.npz: not read: notes\n"
    # A letter of the name of an array is another name.
    build(Trajectories, tmp_path, PATHS | {"s": VALUES})
    assert capsys.readouterr().err == f"data.path={tmp_path}/a.npz: not read: s\n"
    states = ("sample", "time", "point"), PATHS["trajectories"]
    axes = {"time": PATHS["times"], "point": np.arange(8)}
    data = xarray.Dataset({"trajectories": states}, axes)
    data.to_netcdf(tmp_path / "a.nc", engine="scipy")
    Trajectories.build(tmp_path / "a.nc")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "arrays", "options", "message"),
    [
        (Arrays, PATHS, {}, "data.name=trajectories"),
        (Trajectories, PAIR, {}, "data.name=arrays"),
        (Trajectories, {"traj": VALUES}, {}, r"only traj\..*data\.options\.inputs"),
        (Arrays, PAIR | {"test_points": VALUES[0]}, {}, "no array test_inputs"),
        (Arrays, PAIR, {"parameters": "nu"}, "no array nu"),
        (Trajectories, OTHER_GRID, {}, "grid is periodic, test_grid is midpoint"),
    ],
)
def test_arrays_that_do_not_fit_by_name_are_refused(tmp_path, task, arrays, options, message):
    with pytest.raises(ide.InputError, match=message):
        build(task, tmp_path, arrays, **options)


def test_a_group_is_in_one_part(tmp_path):
    validation = {f"validation_{name}": x[:4] for name, x in PAIR.items()}
    arrays = PAIR | validation | {"groups": np.arange(20) // 2}
    build(Arrays, tmp_path, arrays | {"validation_groups": np.arange(90, 94)})
    with pytest.raises(ide.InputError, match="9 of validation_groups"):
        build(Arrays, tmp_path, arrays | {"validation_groups": np.arange(9, 13)})


def test_variables_are_named_as_parameters(tmp_path):
    names = ["nu", "mu"]
    numbers = {"nu": VALUES[:, 0], "mu": VALUES[:, 1:3]}
    part = {f"test_{x}": y[:4] for x, y in (PAIR | numbers).items()}
    task = build(Arrays, tmp_path, PAIR | numbers | part, parameters=names, grid="midpoint")
    np.testing.assert_allclose(task.data["test"][0][:, 5, 1:], VALUES[:4, :3], rtol=1e-6)
    data = xarray.Dataset({"u": (("sample", "time", "x"), PATHS["trajectories"])})
    data["nu"] = "sample", numbers["nu"]
    data["mu"] = ("sample", "number"), numbers["mu"]
    data.to_netcdf(tmp_path / "a.nc", engine="scipy")
    task = Trajectories.build(tmp_path / "a.nc", "u", parameters=names)
    assert task.sizes["channels"] == 1 + 3 and task.sizes["output_channels"] == 1


def test_data_and_a_model_that_differ_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", **PATHS)
    np.savez("b.npz", **PATHS, parameters=VALUES[:, :2])
    np.savez("c.npz", inputs=VALUES, targets=VALUES[:, 0])
    model = {"kind": "operator_model", "operators": ["damping"], "options": {"modes": 1}}
    numbers = stub.config(data={"name": "arrays", "path": "c.npz"}, model=model)
    with pytest.raises(ide.InputError, match=r"model\.kind=function_regressor"):
        setup(numbers)
    config = stub.config(data={"name": "trajectories", "path": "a.npz"}, model=model)
    run = stub.start_run(config, tmp_path)
    for command in ("evaluate", "rollout"):
        error = run_here(capsys, command, run.path, "data.path=b.npz", expected=2)
        assert "channels=3, and the model no channels" in error and "damaged" not in error
    # Units are those of the run, whatever the options of other data.
    loaded = ide.load_model(run.path, ["data.options.normalize=true"])
    assert loaded.model.inputs.statistics is None
