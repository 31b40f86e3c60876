"""The file that pyright reads strictly is right about what happens, too."""

import sys
from importlib import metadata, util
from pathlib import Path

import pytest
from helpers import GOLDEN, ROOT

import ide_transformer as ide
from ide_transformer import training


FILE = Path(__file__).parent / "public_face.py"


@pytest.mark.heavy
def test_the_public_face_as_a_user_writes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    spec = util.spec_from_file_location("public_face", FILE)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "public_face", module)
    spec.loader.exec_module(module)
    module.main(GOLDEN / "gpt2", tmp_path, "public_face:Counting")


def test_the_package_says_that_it_is_typed_and_which_version_it_is():
    assert (ROOT / "ide_transformer/py.typed").is_file()
    assert ide.__version__ == metadata.version("ide_transformer")
