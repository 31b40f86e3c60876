"""Training on layouts of devices gives the losses of one device. Texts larger than what a
process may hold: the memory that they take, and runs on them that are killed."""

import json
import signal
import subprocess
import sys
import time
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
from tests.running import logged, run_apart
from tests.tasks.large_corpus import documents, write_corpus
from tests.training import stub


ON_MESHES = Path(__file__).parent / "on_meshes.py"
TRAINED = [
    *("solver.kind=algebraically_reversible(lie_trotter)", "training.gradient=reversible"),
    "optimizer.kind=lion",
]
MESHES = [{}, {"fsdp": 2, "tensor": 2, "sequence": 2}, {"data": 2, "fsdp": 4}]


def overrides(mesh):
    return [f"parallel.{axis}={size}" for axis, size in mesh.items()]


def on_meshes(there, runs, *options):
    done = run_apart([sys.executable, ON_MESHES, there, json.dumps(runs), *options])
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.heavy
def test_every_mesh_gives_the_losses_of_one_device(tmp_path):
    runs = on_meshes(tmp_path, [[*TRAINED, *overrides(mesh)] for mesh in MESHES])
    for mesh, run in zip(MESHES, runs, strict=True):
        losses = run["losses"]
        assert len(losses) == 6 and losses[-1] < losses[0] - 0.05, losses
        np.testing.assert_allclose(losses, runs[0]["losses"], atol=1e-5, err_msg=str(mesh))
        parts, share = mesh.get("fsdp", 1), runs[0]["bytes"] / run["bytes"]
        if "tensor" in mesh:
            assert share > 1.5 * parts, mesh
        else:
            assert share == pytest.approx(parts, rel=0.1), mesh


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
    def lay_out(config):
        devices: Any = AbstractMesh(tuple(config.sizes.values()), config.axes)
        return parallel.Layout(devices)

    for override, said in (
        ("parallel.data=2", "= 2: it must divide the 1 devices"),
        ("parallel.data=3", "parallel.fsdp = 3 does not divide training.batch_size .*, 4"),
        ("parallel.tensor=3", "parallel.tensor = 3 does not divide the number of heads, 2"),
    ):
        with pytest.raises(InputError, match=said):
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
    own = domain.padded(jnp.ones((4, 8), bool))
    batch = tasks.Batch(ide.Field(values, domain), ide.Field(values, own))
    shapes = parallel.Layout(mesh).shapes(batch)
    divided, whole = PartitionSpec(("data",), ("sequence",)), PartitionSpec()
    for field in shapes.inputs, shapes.targets:
        assert field.values.sharding.spec == divided
        assert field.domain.points.sharding.spec == field.domain.ends.sharding.spec == whole
    assert shapes.inputs.domain.weights.sharding.spec == whole
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
def test_memory_does_not_grow_with_the_text_and_a_killed_run_sees_the_same(tmp_path):
    """The first run on each text makes the tokens. Another run on the large text finds them, is
    killed and resumes."""

    def script(size, runs, *options):
        config = tmp_path / f"{size}.yaml"
        return [sys.executable, SCRIPTS / "train.py", config, "--runs", runs, *options]

    def peak(*given):
        command = [sys.executable, "-c", MEASURED, *script(*given)]
        return int(subprocess.check_output(command, text=True)) / 1024

    peaks, first, second = {}, tmp_path / "first", tmp_path / "second"
    for size in (2, 16):
        path = write_corpus(tmp_path, f"{size}", documents(shakespeare(), size * 2**20))
        tree = stub.tree(
            data={"name": "dataset", "path": str(path), "validation": 0.0001},
            model={"operators": ["feed_forward"], "width": 16, "context": 64},
            training={"steps": 60, "checkpoint_every": 10, "evaluate_every": 60},
        )
        (tmp_path / f"{size}.yaml").write_text(yaml.safe_dump(tree))
        peaks[size] = peak(size, first / f"{size}")
    log = second / "small/metrics.jsonl"
    with subprocess.Popen(script(16, second)) as process:
        while not (log.exists() and log.read_text().count("\n") > 22):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    resumed = peak(16, second, "--resume")
    assert logged(second / "small") == logged(first / "16/small")
    # The maps of a text and of its tokens, a byte each, count as memory where they were read.
    assert max(peaks[16], resumed) < peaks[2] + 2 * 16 + 16, (peaks, resumed)
