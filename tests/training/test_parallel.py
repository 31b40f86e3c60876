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
from training import stub

import ide_transformer as ide
from ide_transformer import InputError, tasks, training
from ide_transformer.training import parallel, run
from ide_transformer.training.optimizer import path_of


ON_MESHES = Path(__file__).parent / "on_meshes.py"
THREE_AXES = {"fsdp": 2, "tensor": 2, "sequence": 2}
# By what is trained, the layouts on which it is.
RUNS = {
    "optimizer.kind=lion": [THREE_AXES, {"data": 2, "fsdp": 4}],
    "solver.kind=algebraically_reversible(lie_trotter) training.gradient=reversible"
    " optimizer.kind=schedule_free optimizer.schedule=constant": [
        {"data": 2, "tensor": 2, "sequence": 2}
    ],
}


def overrides(mesh):
    return [f"parallel.{axis}={size}" for axis, size in mesh.items()]


def on_meshes(there, runs, *options):
    done = run_apart([sys.executable, ON_MESHES, there, json.dumps(runs), *options])
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.heavy
def test_every_mesh_gives_the_losses_of_one_device(tmp_path):
    cases = [(kind, mesh) for kind, meshes in RUNS.items() for mesh in ({}, *meshes)]
    found = on_meshes(tmp_path, [[*kind.split(), *overrides(mesh)] for kind, mesh in cases])
    for (kind, mesh), here in zip(cases, found, strict=True):
        if not mesh:
            one = here
        losses = here["losses"]
        assert len(losses) == 6 and losses[-1] < losses[0] - 0.05, (kind, losses)
        np.testing.assert_allclose(losses, one["losses"], atol=1e-5, err_msg=str((kind, mesh)))
        parts = mesh.get("fsdp", 1)
        if "tensor" in mesh:
            assert one["bytes"] > 1.5 * parts * here["bytes"], (kind, mesh)
        else:
            assert one["bytes"] / here["bytes"] == pytest.approx(parts, rel=0.1), (kind, mesh)


@pytest.mark.heavy
def test_a_run_goes_on_with_other_devices(tmp_path):
    """With optimizers that keep other things of a weight, a batch in parts, and an average."""
    options = ["optimizer.kind=muon", "training.average=0.9", "training.accumulate=2"]
    options += ["optimizer.clip=0.1", "optimizer.groups={control: 0.5}"]
    layouts = [
        dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
        for sizes in ((2, 2, 2), (1, 1, 1), (2, 2, 1))
    ]
    first, *others = map(overrides, layouts)
    eight, one, four = on_meshes(tmp_path, [[*options, *first], *others], "resume")
    assert len(eight["losses"]) == len(one["losses"]) == 6
    np.testing.assert_allclose(one["losses"], eight["losses"], atol=1e-5)
    np.testing.assert_allclose(four["losses"], eight["losses"], atol=1e-5)
    assert one["bytes"] > 1.9 * four["bytes"]
    last = [training.load_run(x["folder"], weights="average")[0] for x in (eight, four)]
    a, b = (np.asarray(x.inputs.embedding) for x in last)
    np.testing.assert_allclose(a, b, atol=1e-4)


REFUSED = {
    "parallel.data=2": "layout of 2 devices, and there are 1",
    "parallel.rank=1": "parallel.processes, their number",
}
# As if there were as many devices.
DIVISORS = {
    "parallel.data=3": "data × parallel.fsdp = 3 does not divide training.batch_size, 4",
    "parallel.tensor=3": "parallel.tensor = 3 does not divide the number of heads, 2",
    "parallel.sequence=3": "parallel.sequence = 3 does not divide the number of tokens, 4",
}


@pytest.mark.parametrize("override", REFUSED | DIVISORS)
def test_meshes_that_cannot_be_are_refused(override, tmp_path, monkeypatch):
    if override in DIVISORS:
        monkeypatch.setattr(run, "make_layout", lambda parallel: None)
    with pytest.raises((InputError, ValueError), match=(REFUSED | DIVISORS)[override]):
        stub.train(tmp_path / "runs", override, "model.operators=[attention,feed_forward]")
    assert not (tmp_path / "runs").exists()


def test_the_part_of_a_batch_of_a_process_is_that_of_all():
    """Also where the samples share points, which are those of all processes."""
    text = tasks.LanguageTask("the sea is wide and the night is long. " * 9, 8)
    burgers = tasks.BurgersInterval(8, points="random")
    for task in (text, burgers):
        whole, part = task.batch(3, 8, 1), task.part_of_batch(3, 8, 1, slice(2, 5))
        (own, shared), (of_part, also) = whole.divided(), part.divided()
        assert eqx.tree_equal(jax.tree.map(lambda x: x[2:5], own), of_part)
        assert eqx.tree_equal(shared, also)
        assert bool(jax.tree.leaves(shared)) == (task is burgers)


def test_each_weight_has_one_rule():
    """Also in the state of an optimizer; tables of a vocabulary are divided by it."""
    config = stub.config("model.tied=false")
    model = training.build_model_of_size(config, {"vocabulary": 6}, jax.random.key(0))
    state = {"mu": eqx.filter(model, eqx.is_inexact_array), "step": np.zeros(())}
    names = {
        path_of(path).rpartition("mu.")[2]: parallel._names(path, x.ndim)
        for path, x in jax.tree.leaves_with_path(state)
    }
    tables = {path for path, axes in names.items() if axes == ("vocabulary", "features")}
    assert tables == {"inputs.embedding", "read_out.weight"} and names["step"] == ()
    (query,) = (axes for path, axes in names.items() if path.endswith("query.weight"))
    assert query == ("layers", "features", "inner")


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
