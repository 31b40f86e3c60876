"""A small run on a text, which tests of its checkpoints, its data and its resumption share."""

import contextlib
import shutil
from pathlib import Path

import equinox as eqx
import jax
import pytest

from ide_transformer import training
from tests.training import stub
from tests.training.stub import TEXT as TEXT


RUN = Path("runs/small")


def config(*overrides, **sections):
    """Of a run on the text; its operators are feed-forwards, which compile in half of the
    time."""
    sections["model"] = {"operators": ["feed_forward"]} | sections.get("model", {})
    return stub.config(*overrides, data={"name": "text", "path": "text.txt"}, **sections)


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def equal(tree, other_tree):
    """Whether two trees are the same to the bit. NumPy says it, which compiles nothing."""
    return eqx.tree_equal(*jax.device_get((tree, other_tree)))


@pytest.fixture(scope="module", autouse=True)
def stub_is_known():
    with stub.known():
        yield


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory):
    """The folder of a text and of a run on it with two checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "text.txt").write_text(TEXT)
    with stub.known(), contextlib.chdir(folder):
        training.train(config(), runs=RUN.parent)
    return folder


@pytest.fixture(scope="session")
def end(trained_folder):
    """The model at the end of the run."""
    return training.load_run(trained_folder / RUN)[0]


@pytest.fixture
def folder(trained_folder, tmp_path, monkeypatch):
    """A copy of the folder, in which the process is."""
    shutil.copytree(trained_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def killed(folder):
    """The copy without the last checkpoint, as after a kill."""
    shutil.rmtree(folder / RUN / "checkpoints/4")
    (folder / RUN / "summary.json").unlink()
    return folder
