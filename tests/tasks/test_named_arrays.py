"""Which arrays of a file a task reads by name, and what it says of the others."""

import numpy as np
import pytest
import xarray

from ide_transformer import InputError, load_model
from ide_transformer.tasks import Arrays, Trajectories
from ide_transformer.training.setup import setup
from tests.running import run_here
from tests.training import stub


RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=(20, 24))
PAIR = {"inputs": VALUES, "targets": VALUES + 1}
PATHS = {"trajectories": RANDOM.normal(size=(20, 5, 8)), "times": np.arange(5)}
LABELS = np.array(["cat", "dog"] * 10)


def build(task, folder, arrays, **options):
    np.savez(folder / "a.npz", **arrays)
    return task.build(folder / "a.npz", **options)


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
    with pytest.raises(InputError, match=f"array {name} .* {likely}"):
        build(task, tmp_path, arrays | {name: VALUES})


def test_other_names_are_told_and_coordinates_are_none(tmp_path, capsys):
    build(Arrays, tmp_path, PAIR | {"notes": VALUES})
    assert capsys.readouterr().err == f"data.path={tmp_path}/a.npz: not read: notes\n"
    # A letter of the name of an array is another name.
    build(Trajectories, tmp_path, PATHS | {"s": VALUES})
    assert capsys.readouterr().err == f"data.path={tmp_path}/a.npz: not read: s\n"
    data = xarray.Dataset(
        {"trajectories": (("sample", "time", "point"), PATHS["trajectories"])},
        {"time": PATHS["times"], "point": np.arange(8)},
    )
    data.to_netcdf(tmp_path / "a.nc", engine="scipy")
    Trajectories.build(tmp_path / "a.nc")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "arrays", "options", "message"),
    [
        (Arrays, PATHS, {}, "data.name=trajectories"),
        (Trajectories, PAIR, {}, "data.name=arrays"),
        (Trajectories, {"traj": VALUES}, {}, r"only traj\..*data\.options\.inputs\.$"),
        (Arrays, PAIR | {"test_points": VALUES[0]}, {}, "no array test_inputs"),
        (Arrays, PAIR, {"parameters": "nu"}, "no array nu"),
        (Arrays, PAIR | {"targets": LABELS}, {"labels": ["cat", "dog", "cat"]}, "'cat'"),
        (
            Trajectories,
            PATHS
            | {"grid": "periodic", "test_grid": "midpoint"}
            | {"test_trajectories": PATHS["trajectories"][:3] + 1},
            {},
            "grid is periodic, test_grid is midpoint",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, task, arrays, options, message):
    with pytest.raises(InputError, match=message):
        build(task, tmp_path, arrays, **options)


def test_a_group_is_in_one_part(tmp_path):
    validation = {f"validation_{name}": x[:4] for name, x in PAIR.items()}
    arrays = PAIR | validation | {"groups": np.arange(20) // 2}
    build(Arrays, tmp_path, arrays | {"validation_groups": np.arange(90, 94)})
    with pytest.raises(InputError, match="9 of validation_groups"):
        build(Arrays, tmp_path, arrays | {"validation_groups": np.arange(9, 13)})


def test_variables_are_named_as_parameters(tmp_path):
    """Also those of a part."""
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
    """The checkpoint is whole."""
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", **PATHS)
    np.savez("b.npz", **PATHS, parameters=VALUES[:, :2])
    np.savez("c.npz", inputs=VALUES, targets=VALUES[:, 0])
    model = {"kind": "operator_model", "operators": ["damping"], "options": {"modes": 1}}
    numbers = stub.config(data={"name": "arrays", "path": "c.npz"}, model=model)
    with pytest.raises(InputError, match=r"model\.kind=function_regressor"):
        setup(numbers)
    run = stub.start_run(
        stub.config(data={"name": "trajectories", "path": "a.npz"}, model=model), tmp_path
    )
    for command in ("evaluate", "rollout"):
        error = run_here(capsys, command, run.path, "data.path=b.npz", expected=2)
        assert "channels=3, and the model no channels" in error and "damaged" not in error
    # Units are those of the run, whatever the options of other data.
    loaded = load_model(run.path, ["data.options.normalize=true"])
    assert loaded.model.inputs.statistics is None
