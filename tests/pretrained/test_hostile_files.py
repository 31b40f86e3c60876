"""Files that attack their reader are refused by an error that names them."""

import json
import sys
from pathlib import Path

import pytest
from pretrained.hostile import ATTACKS
from running import run_apart

import ide_transformer as ide


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused_by_name(name, tmp_path):
    write, case = ATTACKS[name]
    (tmp_path / "files").mkdir()
    file, read = write(tmp_path / "files", case)
    with pytest.raises(ide.InputError) as caught:
        read()
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.heavy
def test_a_refusal_takes_two_seconds_and_200_mebibytes_at_most(tmp_path):
    script = Path(__file__).with_name("hostile.py")
    lines = run_apart([sys.executable, script, tmp_path]).stdout.splitlines()
    costs = [json.loads(line) for line in lines]
    assert {cost["name"] for cost in costs} == ATTACKS.keys()
    for cost in costs:
        assert cost["refused"] and cost["seconds"] < 2 and cost["mebibytes"] < 200, cost
