"""The code that makes a run, as it is recorded."""

import importlib
import re

from ide_transformer import training
from ide_transformer.training.folder import checksum_of, source


def test_own_modules_are_part_of_it(tmp_path, monkeypatch):
    plain = source(training.Config())
    assert re.fullmatch(r"\S+ \([0-9a-f]{12}\)", plain) and source() == plain
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_part.py"
    module.write_text("one = 1\n")
    importlib.import_module("own_part")
    config = training.Config.model_validate({"model": {"operators": ["own_part:One"]}})
    before = source(config)
    assert before.startswith(f"{plain}, own_part (")
    module.write_text("one = 2\n")
    assert source(config) != before


def test_a_checksum_is_that_of_the_contents(tmp_path):
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_text("x")
    before = checksum_of(files)
    assert before != checksum_of(files[:1]) and before == checksum_of(files[::-1])
    files[0].write_text("y")
    assert before != checksum_of(files)
