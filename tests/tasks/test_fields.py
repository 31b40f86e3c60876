"""Fields and tables that people have become arrays by name, with times and points."""

from importlib.util import find_spec

import numpy as np
import pytest
import xarray

import ide_transformer as ide
from ide_transformer.tasks import Arrays, Trajectories
from ide_transformer.tasks.files import stored_arrays


RANDOM = np.random.default_rng(0)
SAMPLES, TIMES, Y, X = 5, 4, 3, 6
STATES = RANDOM.normal(size=(SAMPLES, TIMES, Y, X)).astype(np.float32)
TIME = 0.5 * np.arange(TIMES)
EQUAL = np.linspace(-1, 1, X)
UNEQUAL = np.arange(X) ** 2.0

needs_hdf5 = pytest.mark.skipif(find_spec("h5py") is None, reason="h5py is not installed")


def read(path, names="trajectories", **options):
    roles = {"inputs": names}
    return {name: x.read() for name, x in stored_arrays(path, roles, **options).items()}


def write_fields(folder, form, x=EQUAL):
    """Two variables with dimensions and coordinates, in one of the forms."""
    dims = ("sample", "time", "y", "x")
    data = xarray.Dataset(
        {"u": (dims, STATES), "v": (dims, 2 * STATES), "level": ("sample", np.arange(SAMPLES))},
        {"time": TIME, "y": np.arange(Y), "x": x},
    )
    if form == "zarr":
        data.to_zarr(folder / "a.zarr", consolidated=False)
        return folder / "a.zarr"
    data.to_netcdf(folder / "a.nc", engine=form)
    return folder / "a.nc"


@pytest.mark.parametrize("form", ["scipy", pytest.param("h5netcdf", marks=needs_hdf5), "zarr"])
def test_variables_have_dimensions_and_times(tmp_path, form):
    """In any order, and as channels; equal steps need no points."""
    path = write_fields(tmp_path, form)
    arrays = read(path, ["u", "v"])
    np.testing.assert_array_equal(arrays["inputs"], np.stack([STATES, 2 * STATES], -1))
    np.testing.assert_array_equal(arrays["times"], TIME)
    assert "points" not in arrays and arrays["level"].shape == (SAMPLES,)
    task = Arrays.build(path, ["u", "v"], "v", "level", validation=0.4, grid="midpoint")
    assert task.sizes["channels"] == 2 and task.sizes["output_channels"] == 1
    turned = read(path, "u", dimensions=["sample", "x", "time", "y"])
    np.testing.assert_array_equal(turned["u"], STATES.transpose(0, 3, 1, 2))
    task = Trajectories.build(path, ["u", "v"], ["sample", "time", "y", "x"], validation=0.4)
    assert task.sizes["points"] == (Y, X) and task.sizes["channels"] == 2
    np.testing.assert_array_equal(task.times, TIME)


def write_square(path, **dimensions):
    values = RANDOM.normal(size=(4, 4, 4))
    data = {name: (axes.split(), values) for name, axes in dimensions.items()}
    xarray.Dataset(data, {"time": 0.5 * np.arange(4)}).to_netcdf(path, engine="scipy")
    return values


def test_dimensions_are_aligned_by_name(tmp_path):
    """Also where all axes have one size, and not by the names of other samples."""
    orders = dict(inputs="sample y x", targets="sample x y", other="more x y")
    values = write_square(tmp_path / "a.nc", **orders)
    arrays = Arrays.build(tmp_path / "a.nc", validation=1.0).data["validation"]
    np.testing.assert_allclose(arrays[1], arrays[0].swapaxes(1, 2))
    stored = stored_arrays(tmp_path / "a.nc", {"inputs": "inputs", "targets": "targets"})
    assert stored["other"].dimensions == ("more", "y", "x")
    np.testing.assert_array_equal(stored["other"].read(), values.swapaxes(1, 2))


@pytest.mark.parametrize(
    ("task", "orders", "dimensions"),
    [
        (Trajectories, {"trajectories": "time sample x"}, ["sample", "time", "x"]),
        (Trajectories, {"trajectories": "n x time"}, ["n", "time", "x"]),
        (Arrays, {"inputs": "y sample x", "targets": "sample y x"}, ["sample", "y", "x"]),
        (Arrays, {"inputs": "x n y", "targets": "n y z"}, ""),
    ],
)
def test_samples_come_first(tmp_path, task, orders, dimensions):
    """Then times of trajectories. Other orders name the option, which then suffices."""
    write_square(tmp_path / "a.nc", **orders)
    with pytest.raises(ide.InputError, match=r"data\.options\.dimensions") as error:
        task.build(tmp_path / "a.nc")
    assert str(dimensions) in str(error.value)
    if dimensions:
        task.build(tmp_path / "a.nc", dimensions=dimensions, validation=0.5)


def test_parts_have_dimensions_in_one_order(tmp_path):
    write_square(tmp_path / "train.nc", inputs="sample y x", targets="sample y x")
    write_square(tmp_path / "test.nc", inputs="sample x y", targets="sample x y")
    with pytest.raises(ide.InputError, match=r"test.nc .* data.options.dimensions"):
        Arrays.build(tmp_path)
    Arrays.build(tmp_path, dimensions=["sample", "y", "x"], validation=0.5)


def test_coordinates_with_unequal_steps_are_points(tmp_path):
    arrays = read(write_fields(tmp_path, "scipy", UNEQUAL), "u")
    np.testing.assert_array_equal(arrays["u"], STATES.reshape(SAMPLES, TIMES, Y * X))
    y, x = np.meshgrid(np.arange(Y) / 2, UNEQUAL / 25, indexing="ij")
    np.testing.assert_allclose(arrays["points"], np.stack([y.ravel(), x.ravel()], 1))


def test_nodes_have_the_coordinates_that_are_on_them(tmp_path):
    x, y = RANDOM.random((2, 12))
    values = RANDOM.normal(size=(30, 12))
    data = {"inputs": (("sample", "node"), values), "targets": (("sample", "node"), values)}
    places = {"x": ("node", x), "y": ("node", y)}
    xarray.Dataset(data, places).to_netcdf(tmp_path / "a.nc", engine="scipy")
    points = read(tmp_path / "a.nc", "inputs")["points"]
    np.testing.assert_allclose(points[:, 0], (x - x.min()) / np.ptp(x))
    assert Arrays.build(tmp_path / "a.nc").sizes["fields"]


@needs_hdf5
def test_hdf5_without_dimensions(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["inputs"] = STATES
        file["of/places"] = ["a", "b"]
        file.create_dataset("large", (10**9, 10**9), "f4", chunks=(1, 1))
    stored = stored_arrays(tmp_path / "a.h5")
    np.testing.assert_array_equal(stored["inputs"].read(), STATES)
    assert stored["of/places"].read().tolist() == ["a", "b"]
    assert stored["large"].numbers == 10**18


def write_well(path, samples=SAMPLES):
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update(n_trajectories=samples, grid_type="cartesian", n_spatial_dims=2)
        file["dimensions/time"] = TIME
        file["dimensions/y"], file["dimensions/x"] = np.arange(Y), EQUAL
        file["dimensions"].attrs["spatial_dims"] = ["y", "x"]
        file["t0_fields/pressure"] = STATES[:samples]
        file["t0_fields/density"] = STATES[:samples, 0, 0]
        file["t0_fields"].attrs["field_names"] = ["pressure", "density"]
        flags = {"sample_varying": True, "time_varying": False, "dim_varying": [False, True]}
        file["t0_fields/density"].attrs.update(flags)
        file["t1_fields/velocity"] = np.stack([STATES, -STATES], -1)[:samples]
        file["t2_fields/stress"] = np.ones((TIMES, Y, X, 2, 2), "f4")
        file["t2_fields/stress"].attrs["sample_varying"] = False
        file["scalars/viscosity"], file["scalars/forcing"] = [0.5], np.ones(TIMES)
        file["scalars/Re"] = np.arange(samples)
        file["scalars/forcing"].attrs["time_varying"] = True
        for name in "xy":
            wall = file.create_group(f"boundary_conditions/{name}_periodic")
            wall.attrs.update(bc_type="PERIODIC", associated_dims=[name])


@needs_hdf5
@pytest.mark.parametrize("where", ["", "data/train"])
def test_the_layout_of_the_well(tmp_path, where):
    """A file, or folders of several for the parts; what does not vary is repeated."""
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    write_well(tmp_path / where / "a.hdf5")
    if where:
        write_well(tmp_path / where / "b.hdf5", samples=2)
        (valid := (tmp_path / where).with_name("valid")).mkdir()
        write_well(valid / "c.hdf5", samples=3)
    arrays = read(tmp_path if where else tmp_path / "a.hdf5")
    states = arrays["trajectories"]
    assert states.shape == (SAMPLES + (2 if where else 0), TIMES, Y, X, 7)
    np.testing.assert_array_equal(states[:SAMPLES, ..., 1], STATES)
    np.testing.assert_array_equal(states[SAMPLES:, ..., 2], -STATES[: len(states) - SAMPLES])
    assert (states[..., 3:] == 1).all()
    density = np.broadcast_to(STATES[:, 0, :1, :], (SAMPLES, Y, X))
    np.testing.assert_array_equal(arrays["constant"][:SAMPLES, ..., 0], density)
    parameters = np.stack([np.arange(SAMPLES), np.full(SAMPLES, 0.5)], 1)
    np.testing.assert_array_equal(arrays["parameters"][:SAMPLES], parameters)
    np.testing.assert_array_equal(arrays["times"], TIME)
    assert arrays["grid"] == "periodic" and "points" not in arrays
    if where:
        assert arrays["validation_trajectories"].shape == (3, *states.shape[1:])
        return
    # Parameters and constant fields are further channels.
    task = Trajectories.build(tmp_path / "a.hdf5", validation=0.4)
    assert task.sizes["grid"] == "periodic" and task.sizes["output_channels"] == 7
    assert task.sizes["channels"] == 7 + 2 + 1


LINE = STATES[:, :, 0]
COORDINATES = {"x-coordinate": EQUAL, "t-coordinate": 0.5 * np.arange(TIMES + 1)}
PLANE = {"x-coordinate": np.arange(Y), "y-coordinate": EQUAL}
SAMPLE = {"data": STATES[0, ..., None], "grid/x": np.arange(Y), "grid/y": EQUAL, "grid/t": TIME}
PDEBENCH = {
    "tensor": ({"tensor": LINE, **COORDINATES}, LINE[..., None]),
    "fields": (
        {"Vx": LINE, "density": 2 * LINE, "pressure": 3 * LINE, **COORDINATES},
        np.stack([2 * LINE, 3 * LINE, LINE], -1),
    ),
    "groups": (
        {f"{i:04}/{name}": x for i in range(SAMPLES) for name, x in SAMPLE.items()},
        np.stack([STATES[0, ..., None]] * SAMPLES),
    ),
    "velocity": (
        {"velocity": np.stack([STATES, STATES], -1), "t": np.stack([TIME] * SAMPLES)},
        np.stack([STATES, STATES], -1),
    ),
}


def write_hdf5(path, arrays):
    import h5py

    with h5py.File(path, "w") as file:
        for name, x in arrays.items():
            file[name] = x


@needs_hdf5
@pytest.mark.parametrize("kind", PDEBENCH)
def test_the_layouts_of_pdebench(tmp_path, kind):
    arrays, states = PDEBENCH[kind]
    write_hdf5(tmp_path / "a.hdf5", arrays)
    stored = read(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(stored["trajectories"], states)
    np.testing.assert_array_equal(stored["times"], TIME)


@needs_hdf5
def test_two_constants_of_pdebench(tmp_path):
    field, numbers = RANDOM.normal(size=(2, SAMPLES, X)), RANDOM.normal(size=(2, SAMPLES))
    for index, (force, nu) in enumerate((field, numbers)):
        arrays = {"force": force, "nu": nu, "tensor": LINE, **COORDINATES}
        write_hdf5(tmp_path / f"{index}.hdf5", arrays)
        name = ("constant", "parameters")[index]
        expected = np.stack([nu, force], -1)
        np.testing.assert_array_equal(read(tmp_path / f"{index}.hdf5")[name], expected)


@needs_hdf5
def test_a_steady_problem_of_pdebench(tmp_path):
    steady = RANDOM.normal(size=(40, Y, X))
    arrays = {"nu": steady, "tensor": steady[:, None] ** 2, **PLANE}
    write_hdf5(tmp_path / "a.hdf5", arrays)
    task = Arrays.build(tmp_path / "a.hdf5", grid="midpoint")
    assert task.sizes["points"] == (Y, X) and task.sizes["grid"] == "midpoint"
    inputs, targets = task.data["training"][:2]
    np.testing.assert_allclose(targets, inputs**2, rtol=1e-5)


CSV = """\
place;x;y;\N{GREEK SMALL LETTER KAPPA};targets
home;1;2.5;7;dog

"far; away";3;4;8;cat
home;5;6e-1;9;dog
"""


def test_the_columns_of_a_text(tmp_path):
    """Numbers that have no other role are inputs; texts are groups, or classes."""
    (tmp_path / "a.csv").write_text(CSV, "utf-8-sig")
    roles = {"inputs": "inputs", "targets": "targets", "groups": "place"}
    arrays = {x: y.read() for x, y in stored_arrays(tmp_path / "a.csv", roles).items()}
    np.testing.assert_array_equal(arrays["inputs"], [[1, 2.5, 7], [3, 4, 8], [5, 0.6, 9]])
    assert arrays["x"].dtype == np.int64 and arrays["place"].tolist()[1] == "far; away"
    np.testing.assert_array_equal(read(tmp_path / "a.csv", ["y", "x"])["inputs"][0], [2.5, 1])


def test_texts_are_classes(tmp_path, capsys):
    """In sorted order, which is said, or in a given order; those of the test part too."""
    rows = [f"{i % 7},{i % 5},{'dog' if i % 2 else 'cat'}" for i in range(40)]
    for name, some in {"train": rows, "test": rows[1:2]}.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,targets", *some]))
    task = Arrays.build(tmp_path)
    assert "classes 0 cat, 1 dog" in capsys.readouterr().err
    assert task.data["test"][1].tolist() == [1] and task.sizes["classes"] == 2
    task = Arrays.build(tmp_path, labels=["dog", "cat"])
    assert task.data["test"][1].tolist() == [0] and not capsys.readouterr().err
