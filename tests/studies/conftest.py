"""A run that the studies measure."""

import pytest
from training.tiny_runs import configured

from ide_transformer import training


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The folder of a short run on a text that is beside it."""
    there = tmp_path_factory.mktemp("tiny")
    changes = ["model.operators=[damping]", "model.depth=4", "training.steps=3"]
    changes += [f"training.{x}=3" for x in ("evaluate_every", "checkpoint_every")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.run, "plot_run", lambda *_: None)
        return training.train(configured(there, changes), runs=there).path
