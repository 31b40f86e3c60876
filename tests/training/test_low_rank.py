"""Runs that train changes of low rank of a run."""

import equinox as eqx
import jax
import numpy as np
import pytest
import yaml

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.equation import LowRank, merge_low_rank, parts, without_low_rank
from ide_transformer.training.configuration import files
from ide_transformer.training.folder.checkpoints import Checkpoints
from ide_transformer.training.setup import setup
from tests.training import stub
from tests.training.conftest import RUN, equal


TREE = stub.tree()
LORA = {"rank": 2, "targets": ["inner", "outer"]}
TUNED = {"model": {"pretrained": "small", "lora": LORA}, "optimizer": TREE["optimizer"]}
TUNED |= {"training": TREE["training"] | {"seed": 1, "average": 0.5}}


def train_tuned(folder, name, **sections):
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(TUNED | sections))
    return ide.train(f"{name}.yaml")


def test_a_run_changes_low_ranks_only(folder, capsys):
    before = ide.load_run(RUN)[0]
    run = train_tuned(folder, "tuned")
    assert "504 parameters, 160 of them trained" in capsys.readouterr().out
    model = ide.load_run(run.path)[0]
    # Two layers of maps `[4, 16]` and `[16, 4]`.
    changes = parts(model, LowRank)
    assert [x.down.shape for x in changes] == [(2, 4, 2), (2, 16, 2)]
    assert equal(without_low_rank(model), before)
    assert all(np.abs(x.up).max() > 0 for x in changes)
    # The first loss is the loss of the run from which it began.
    config = run.load_config()
    start = setup(config)
    first = eqx.filter_jit(start.task.loss)(before, start.task.batch(0, 4, 1)).loss
    assert stub.losses(run)[0] == pytest.approx(float(first), rel=1e-6)
    average = ide.load_run(run.path, weights="average")[0]
    assert equal(without_low_rank(average), before) and not equal(average, model)
    # Moments of what is trained, and of nothing else.
    with Checkpoints(run) as checkpoints:
        state = checkpoints.restore(start.phases.shapes_at)
    sizes = [x.size for x in jax.tree.leaves(state.optimizer) if x.ndim]
    assert sum(sizes) == 2 * sum(x.down.size + x.up.size for x in changes)
    # A run of all weights begins with the sum.
    next_tree = {"model": {"pretrained": str(run.path), "lora": None}}
    (folder / "next.yaml").write_text(yaml.safe_dump(TUNED | next_tree))
    merged = setup(training.load_config("next.yaml")).model
    assert equal(merged.control, merge_low_rank(model).control)


def test_what_cannot_be_changed_is_named(folder):
    lora = {"targets": ["q"]}
    with pytest.raises(ide.InputError, match=r"model\.lora: targets: .*'q'.* inner"):
        train_tuned(folder, "wrong", model={"pretrained": "small", "lora": lora})
    with pytest.raises(ide.InputError, match=r"model\.lora"):
        files.config_of(stub.tree(model={"lora": {}}), "here")
