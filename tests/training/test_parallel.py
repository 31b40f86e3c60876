"""Training on layouts of devices gives the losses of one device. The memory of a run does not
grow with its text."""

import json
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from jax.sharding import AbstractMesh, PartitionSpec

import ide_transformer as ide
from ide_transformer import InputError, tasks, training
from ide_transformer.tasks import shakespeare
from ide_transformer.training import setup
from ide_transformer.training.steps import layout as parallel
from ide_transformer.training.steps.optimizer import path_of
from tests.helpers import SCRIPTS
from tests.running import run_apart
from tests.tasks.large_corpus import documents, write_corpus
from tests.training import stub


ON_MESHES = Path(__file__).parent / "on_meshes.py"
OPTIONS = [
    *("solver.kind=algebraically_reversible(lie_trotter)", "training.gradient=reversible"),
    *("optimizer.kind=muon", "optimizer.clip=0.1", "optimizer.groups={control: 0.5}"),
    *("training.average=0.9", "training.accumulate=2"),
]
ONE, FOUR = {}, {"data": 2, "fsdp": 2}
EIGHT = {"fsdp": 2, "tensor": 2, "sequence": 2}


@pytest.mark.long
@pytest.mark.heavy
def test_every_mesh_gives_the_losses_of_one_device(tmp_path):
    """Also of a run that goes on with other devices."""
    layouts = [
        [
            f"parallel.{axis}={mesh.get(axis, 1)}"
            for axis in ("data", "fsdp", "tensor", "sequence")
        ]
        for mesh in (EIGHT, ONE, FOUR)
    ]
    process = run_apart(
        [sys.executable, ON_MESHES, tmp_path, *map(json.dumps, (OPTIONS, layouts))]
    )
    eight, *other_runs = json.loads(process.stdout.splitlines()[-1])
    assert len(eight["losses"]) == 6 and eight["losses"][-1] < eight["losses"][0] - 0.05
    for run in other_runs:
        np.testing.assert_allclose(run["losses"], eight["losses"], atol=1e-5)
    one_device, _, four = other_runs
    assert one_device["bytes"] > 3 * eight["bytes"]
    assert one_device["bytes"] / four["bytes"] == pytest.approx(2, rel=0.1)
    a, b = (
        training.load_run(run["folder"], weights="average")[0].inputs.embedding
        for run in (eight, four)
    )
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_layouts_that_cannot_be_are_refused(tmp_path, monkeypatch):
    def lay_out(config):
        devices: Any = AbstractMesh(tuple(config.sizes.values()), config.axes)
        return parallel.Layout(devices)

    for override, message in (
        ("parallel.data=2", "= 2: .*1 devices"),
        ("parallel.data=3", "parallel.fsdp = 3 .*training.batch_size .*4"),
        ("parallel.tensor=3", "parallel.tensor = 3 .*heads, 2"),
    ):
        with pytest.raises(InputError, match=message):
            stub.train(tmp_path / "runs", override, "model.operators=[attention,feed_forward]")
        # From here on as if there were as many devices.
        monkeypatch.setattr(setup, "make_layout", lay_out)
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
    own_domain = domain.padded(jnp.ones((4, 8), bool))
    batch = tasks.Batch(ide.Field(values, domain), ide.Field(values, own_domain))
    shapes = parallel.Layout(mesh).shapes(batch)
    divided, undivided = PartitionSpec(("data",), ("sequence",)), PartitionSpec()
    for field in shapes.inputs, shapes.targets:
        assert field.values.sharding.spec == divided
        assert field.domain.points.sharding.spec == field.domain.ends.sharding.spec == undivided
    assert shapes.inputs.domain.weights.sharding.spec == undivided
    assert shapes.targets.domain.weights.sharding.spec == divided


# The peak of a process counts its parent's peak too, so a small process starts it.
MEASURED = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


@pytest.mark.long
@pytest.mark.heavy
def test_memory_does_not_grow_with_the_text(tmp_path):
    peaks = {}
    for size in (2, 16):
        path = write_corpus(tmp_path, f"{size}", documents(shakespeare(), size * 2**20))
        tree = stub.tree(
            data={"name": "dataset", "path": str(path), "validation": 0.0001},
            model={"operators": ["feed_forward"], "width": 16, "context": 64},
        )
        config = tmp_path / f"{size}.yaml"
        config.write_text(yaml.safe_dump(tree))
        script = [SCRIPTS / "train.py", config, "--runs", tmp_path / "runs"]
        process = run_apart([sys.executable, "-c", MEASURED, sys.executable, *script])
        peaks[size] = int(process.stdout) / 1024
    # The maps of a text and of its tokens, a byte each, count as memory where they were read.
    assert peaks[16] < peaks[2] + 2 * 16 + 16, peaks
