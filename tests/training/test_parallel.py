"""Training on layouts of devices gives the losses of one device."""

import json
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from running import run_apart
from training.tiny_runs import configured

import ide_transformer as ide
from ide_transformer import InputError, tasks, training
from ide_transformer.training import parallel, run
from ide_transformer.training.optimizer import path_of


ON_MESHES = Path(__file__).parent / "on_meshes.py"
MESHES = [
    {"fsdp": 2, "tensor": 2, "sequence": 2},
    {"data": 4},
    {"fsdp": 4},
    {"tensor": 2},
    {"sequence": 4},
]
MORE_MESHES = [{"data": 2, "fsdp": 2, "sequence": 2}, {"data": 2, "tensor": 2, "sequence": 2}]
AXES = {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1}
SCHEMES = {
    "lie_trotter": [],
    "strang(heun)": ["solver.kind=strang(heun)"],
    "reversible": [
        "solver.kind=algebraically_reversible(lie_trotter)",
        "training.gradient=reversible",
    ],
}
OPTIMIZERS = [
    ["optimizer.kind=lion", "optimizer.schedule=warmup_stable_decay"],
    ["optimizer.kind=schedule_free", "optimizer.schedule=constant"],
    ["optimizer.kind=muon", "optimizer.clip=0.1", "optimizer.groups={control: 0.5}"],
]


def overrides(mesh):
    return [f"parallel.{axis}={size}" for axis, size in mesh.items()]


def on_meshes(there, runs, *options):
    done = run_apart([sys.executable, ON_MESHES, there, json.dumps(runs), *options])
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.heavy
def test_every_mesh_gives_the_losses_of_one_device(tmp_path, thorough):
    """With one scheme; with the others the mesh of three axes, or all if thorough."""
    cases = []
    for number, scheme in enumerate(SCHEMES):
        meshes = [*MESHES, *MORE_MESHES] if thorough else MESHES[: 1 if number else None]
        cases += [(scheme, mesh) for mesh in [{}, *meshes]]
    found = on_meshes(tmp_path, [[*SCHEMES[x], *overrides(mesh)] for x, mesh in cases])
    ones = {x: here for (x, mesh), here in zip(cases, found, strict=True) if not mesh}
    for case, here in zip(cases, found, strict=True):
        scheme, mesh = case
        losses, one = here["losses"], ones[scheme]
        assert len(losses) == 20 and losses[-1] < losses[0] - 0.2
        np.testing.assert_allclose(losses, one["losses"], atol=1e-5, err_msg=str(case))
        if "tensor" not in mesh:
            parts = mesh.get("fsdp", 1)
            assert one["bytes"] / here["bytes"] == pytest.approx(parts, rel=0.1), case


@pytest.mark.heavy
def test_every_optimizer_and_schedule_goes_with_a_mesh(tmp_path):
    mesh = overrides({"data": 2, "fsdp": 2, "tensor": 2})
    runs = [*OPTIMIZERS, *([*options, *mesh] for options in OPTIMIZERS)]
    found = on_meshes(tmp_path, runs)
    for options, one, here in zip(OPTIMIZERS, found, found[len(OPTIMIZERS) :], strict=False):
        np.testing.assert_allclose(
            here["losses"], one["losses"], atol=1e-5, err_msg=str(options)
        )
        assert one["bytes"] > 3 * here["bytes"], options


@pytest.mark.heavy
def test_a_run_goes_on_with_other_devices(tmp_path):
    """With optimizers that keep other things of a weight, a batch in parts, and an average."""
    options = ["optimizer.kind=muon", "training.average=0.9", "training.accumulate=2"]
    first = [*options, *overrides({"data": 2, "fsdp": 2, "tensor": 2})]
    others = [{**AXES}, {**AXES, "data": 2, "fsdp": 2}]
    eight, one, four = on_meshes(tmp_path, [first, *map(overrides, others)], "resume")
    assert len(eight["losses"]) == len(one["losses"]) == 20
    np.testing.assert_allclose(one["losses"], eight["losses"], atol=1e-5)
    np.testing.assert_allclose(four["losses"], eight["losses"], atol=1e-5)
    assert one["bytes"] > 1.9 * four["bytes"]
    last = [training.load_run(x["folder"], weights="average")[0] for x in (eight, four)]
    a, b = (np.asarray(x.inputs.embedding) for x in last)
    np.testing.assert_allclose(a, b, atol=1e-4)


REFUSED = {
    "parallel.data=2": "layout of 2 devices, and there are 1",
    "parallel.pipeline=2": "parallel.pipeline",
    "parallel.data=0": "parallel.data",
    "parallel.rank=1": "parallel.processes, their number",
    "training.accumulate=3": "training.accumulate=3 does not divide training.batch_size=8",
}


@pytest.mark.parametrize("override", REFUSED)
def test_meshes_that_cannot_be_are_refused(override, tmp_path):
    with pytest.raises((InputError, ValueError), match=REFUSED[override]):
        training.train(configured(tmp_path, [override]), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


DIVISORS = {
    "parallel.data=3": "data × parallel.fsdp = 3 does not divide training.batch_size, 8",
    "parallel.tensor=3": "parallel.tensor = 3 does not divide the number of heads, 2",
    "parallel.sequence=3": "parallel.sequence = 3 does not divide the number of tokens, 8",
}


@pytest.mark.parametrize("override", DIVISORS)
def test_what_a_mesh_does_not_divide_is_refused(override, tmp_path, monkeypatch):
    # As if there were as many devices.
    monkeypatch.setattr(run, "make_layout", lambda parallel: None)
    with pytest.raises(InputError, match=DIVISORS[override]):
        training.train(configured(tmp_path, [override]), runs=tmp_path / "runs")


def test_a_process_takes_its_rows_of_a_batch(tmp_path):
    text = training.build_task(configured(tmp_path, []))
    whole = text.batch(3, 8, seed=1)
    part = text.part_of_batch(3, 8, 1, slice(2, 5))
    np.testing.assert_array_equal(part.inputs, whole.inputs[2:5])
    np.testing.assert_array_equal(part.targets, whole.targets[2:5])


def test_the_points_of_functions_are_those_of_all_processes():
    task = tasks.BurgersInterval(8, points="random")
    whole, part = task.batch(3, 8, 1), task.part_of_batch(3, 8, 1, slice(2, 5))
    np.testing.assert_array_equal(part.inputs.values, whole.inputs.values[2:5])
    np.testing.assert_array_equal(part.targets.values, whole.targets.values[2:5])
    np.testing.assert_array_equal(part.inputs.domain.points, whole.inputs.domain.points)
    np.testing.assert_array_equal(part.targets.domain.weights, whole.targets.domain.weights)


def test_each_weight_has_one_rule():
    state = {"0": {"mu": {"query": {"weight": np.zeros((3, 4, 8))}}}, "step": np.zeros(())}
    (weight, step) = (
        parallel._names(path, x.ndim) for path, x in jax.tree.leaves_with_path(state)
    )
    assert weight == ("layers", "features", "inner") and step == ()


def test_tables_of_a_vocabulary_are_divided_by_it():
    sizes = {"width": 8, "heads": 2, "depth": 2, "context": 4, "tied": False}
    config = training.Config.model_validate({"model": sizes})
    model = training.build_model_of_size(config, {"vocabulary": 6}, jax.random.key(0))
    weights = eqx.filter(model, eqx.is_inexact_array)
    names = {
        path_of(path): parallel._names(path, x.ndim)
        for path, x in jax.tree.leaves_with_path(weights)
    }
    tables = {path for path, axes in names.items() if axes == ("vocabulary", "features")}
    assert tables == {"inputs.embedding", "read_out.weight"}


def test_the_points_that_samples_share_lie_whole_on_every_device():
    """Also where as many devices would divide them as samples."""
    mesh: Any = AbstractMesh((2, 2), ("data", "sequence"))
    domain = ide.TokenDomain.trapezoid(np.linspace(0, 1, 8, dtype=np.float32))
    values = np.zeros((4, 8), np.float32)
    own = domain.padded(jnp.ones((4, 8), bool))
    batch = tasks.Batch(ide.Field(values, domain), ide.Field(values, own))
    shapes = parallel.Layout(mesh).batch_shapes(batch)
    divided, whole = PartitionSpec(("data",), ("sequence",)), PartitionSpec()
    for field in shapes.inputs, shapes.targets:
        assert field.values.sharding.spec == divided
        assert field.domain.points.sharding.spec == field.domain.ends.sharding.spec == whole
    assert shapes.inputs.domain.weights.sharding.spec == whole
    assert shapes.targets.domain.weights.sharding.spec == divided
