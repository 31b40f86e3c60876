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


def contents(there):
    return {p: p.read_bytes() for p in sorted(there.rglob("*")) if p.is_file()}


def equal(one, other):
    """Whether two trees are the same to the bit. NumPy says it, which compiles nothing."""
    return eqx.tree_equal(*jax.device_get((one, other)))


@pytest.fixture(scope="module", autouse=True)
def stub_is_known():
    with stub.known():
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of a text and of a run on it with two checkpoints."""
    there = tmp_path_factory.mktemp("whole")
    (there / "text.txt").write_text(TEXT)
    with stub.known(), contextlib.chdir(there):
        training.train(config(), runs=RUN.parent)
    return there


@pytest.fixture(scope="session")
def end(whole):
    """The model at the end of the run."""
    return training.load_run(whole / RUN)[0]


@pytest.fixture
def there(whole, tmp_path, monkeypatch):
    """A copy of the folder, in which the process is."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def half(there):
    """The copy without the last checkpoint, as after a kill."""
    shutil.rmtree(there / RUN / "checkpoints/4")
    (there / RUN / "summary.json").unlink()
    return there
