"""A run that the studies measure."""

import os

import pytest
from filelock import FileLock
from helpers import ROOT
from running import run_script


@pytest.fixture(scope="session")
def smooth_run(tmp_path_factory):
    """The folder of a short run, whose weights are smooth in depth. One worker trains it, for
    all of them."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    run = folder / "runs/smooth"
    with FileLock(folder / "smooth.lock"):
        if not (run / "summary.json").exists():
            changes = ["name=smooth", "control.kind=chebyshev", "data.validation=0.002"]
            changes += [f"training.{x}=20" for x in ("steps", "evaluate_every")]
            changes += ["training.sample=0"]
            run_script("train.py", ROOT / "configs/quick.yaml", "--runs", run.parent, *changes)
    return run
