"""Training on layouts of devices gives the losses of one device."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax.sharding import AbstractMesh

from ide_transformer import InputError, training
from ide_transformer.training import setup
from ide_transformer.training.steps import layout as parallel
from tests.running import run_apart
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
