"""Training on layouts of devices gives the losses of one device; plans on paper."""

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
from ide_transformer.training import parallel, plan_of, run
from ide_transformer.training.optimizer import path_of
from ide_transformer.training.planning import sent_bytes


ON_MESHES = Path(__file__).parent / "on_meshes.py"
# By what is trained, the layouts on which it is.
RUNS = {
    "optimizer.kind=lion": [{"fsdp": 2, "tensor": 2, "sequence": 2}, {"data": 2, "fsdp": 4}],
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
    sizes = ((2, 2, 2), (1, 1, 1), (2, 2, 1))
    layouts = (dict(zip(("data", "fsdp", "tensor"), x, strict=True)) for x in sizes)
    first, *others = map(overrides, layouts)
    eight, one, four = on_meshes(tmp_path, [[*options, *first], *others], "resume")
    assert len(eight["losses"]) == len(one["losses"]) == 6
    np.testing.assert_allclose(one["losses"], eight["losses"], atol=1e-5)
    np.testing.assert_allclose(four["losses"], eight["losses"], atol=1e-5)
    assert one["bytes"] > 1.9 * four["bytes"]
    last = [training.load_run(x["folder"], weights="average")[0] for x in (eight, four)]
    a, b = (np.asarray(x.inputs.embedding) for x in last)
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_layouts_that_cannot_be_are_refused(tmp_path, monkeypatch):
    for override, said in (
        ("parallel.data=2", "layout of 2 devices, and there are 1"),
        ("parallel.data=3", "data × parallel.fsdp = 3 does not divide training.batch_size, 4"),
        ("parallel.tensor=3", "parallel.tensor = 3 does not divide the number of heads, 2"),
    ):
        with pytest.raises(InputError, match=said):
            stub.train(tmp_path / "runs", override, "model.operators=[attention,feed_forward]")
        # From here on as if there were as many devices.
        monkeypatch.setattr(run, "make_layout", lambda parallel: None)
    assert not (tmp_path / "runs").exists()


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
    shapes = parallel.Layout(mesh).shapes(batch)
    divided, whole = PartitionSpec(("data",), ("sequence",)), PartitionSpec()
    for field in shapes.inputs, shapes.targets:
        assert field.values.sharding.spec == divided
        assert field.domain.points.sharding.spec == field.domain.ends.sharding.spec == whole
    assert shapes.inputs.domain.weights.sharding.spec == whole
    assert shapes.targets.domain.weights.sharding.spec == divided


PROGRAM = """HloModule jit_step

%stays (x: f32[8]) -> f32[8] {
  ROOT %x = f32[8]{0} parameter(0)
}

%hops (x: f32[8]) -> f32[8] {
  ROOT %p = f32[8]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = bf16[4,8]{1,0} all-gather(%y), replica_groups=[2,4]<=[8], dimensions={0}
  %c = f32[8]{0} conditional(%i, %x, %x), branch_computations={%stays, %hops}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]{0}) while(%t), body=%body, backend_config={"known_trip_count":{"n":"6"}}
  %s = f32[2]{0} reduce-scatter(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %a = f32[8]{0} all-to-all(%x), replica_groups=mesh['a'=2,'b'=4], device_ids=([8]) {'b'}
  ROOT %r = f32[8]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%add
}
"""


def test_what_is_sent_counts_loops_and_branches():
    expected = {
        "all-gather": 6 * (4 * 8 * 2) * 3 / 4,
        # One of two branches, in each of six turns.
        "collective-permute": 6 / 2 * (8 * 4),
        # Its result is a part.
        "reduce-scatter": (2 * 4) * 3,
        "all-to-all": (8 * 4) * 3 / 4,
        "all-reduce": 2 * (8 * 4) / 2,
    }
    assert sent_bytes(PROGRAM) == pytest.approx(expected)
    # A part of an axis, and the other one.
    parts = PROGRAM.replace("{'b'}", "{'a','b':(2)2}").replace("{{0,1,2,3},{4,5,6,7}}", "{}")
    with pytest.raises(InputError, match=r"groups of devices in %s"):
        sent_bytes(parts)
    assert sent_bytes(parts.replace("={}", "=[2,4]"))["all-to-all"] == (8 * 4) * 3 / 4
    with pytest.raises(InputError, match=r"devices=.*6.* multiples of 4"):
        plan_of(stub.config(), [6])
