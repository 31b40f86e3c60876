"""The folders of runs: their names, and the code that is recorded in them."""

import importlib
import re
import threading

import pytest
from training.conftest import RUN

from ide_transformer import InputError, training
from ide_transformer.training import folder as folders


def new(runs, name="same"):
    return folders.new_folder(training.Config(name=name), runs, lambda path: None)


def test_a_name_with_a_number_is_another_run(tmp_path):
    for name in ("small", "small-8"):
        new(tmp_path, name)
    assert folders.folder_to_resume("small", tmp_path).path == tmp_path / "small"
    assert folders.folder_to_resume("small-8", tmp_path).path == tmp_path / "small-8"
    assert new(tmp_path, "small").path.name == "small-9"
    several = r"2 runs of the name small .*small \(step 0\), .*small-9 \(step 0\)"
    with pytest.raises(InputError, match=several):
        folders.folder_to_resume("small", tmp_path)
    # The one that is not finished; where all are, the newest.
    for finished, taken in (("small-9", "small"), ("small", "small-9")):
        (tmp_path / finished / "summary.json").write_text("{}")
        assert folders.folder_to_resume("small", tmp_path).path == tmp_path / taken


def test_runs_that_start_at_once_have_folders_of_their_own(tmp_path):
    found, start = [], threading.Barrier(8)

    def begin():
        start.wait()
        found.append(new(tmp_path).path.name)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8
    assert {path.name for path in tmp_path.iterdir()} == set(found)


def test_own_modules_are_part_of_the_code_of_a_run(tmp_path, monkeypatch):
    plain = folders.source(training.Config())
    assert re.fullmatch(r"\S+ \([0-9a-f]{12}\)", plain) and folders.source() == plain
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_part.py"
    module.write_text("one = 1\n")
    importlib.import_module("own_part")
    config = training.Config.model_validate({"model": {"operators": ["own_part:One"]}})
    before = folders.source(config)
    assert before.startswith(f"{plain}, own_part (")
    module.write_text("one = 2\n")
    assert folders.source(config) != before


def test_the_code_of_each_start_is_recorded(there):
    run = training.RunFolder(there / RUN)
    (first,) = run.sources
    run.add_source(first)
    assert run.sources == [first]
    run.add_source("another")
    assert run.sources == [first, "another"] and run.identity and run.data
