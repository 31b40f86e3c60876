"""Comparisons that cannot be made are refused before anything is measured or written."""

import pytest
import yaml

import ide_transformer as ide
from ide_transformer.studies.schemes import load_comparison
from ide_transformer.studies.schemes.training import scheme_config


RATE = "optimizer.learning_rate"
BASE = {
    "data": {"name": "text"},
    "model": {"width": 4, "heads": 2, "depth": 1, "context": 8, "operators": ["damping"]},
    "optimizer": {"warmup": 1},
    "training": {"steps": 4, "batch_size": 2},
}
TRAIN = {
    "mode": "train",
    "base": "base.yaml",
    "budget": {"amount": 2},
    "schemes": {"one": {"solver": "rk4"}},
}
SOLVE = {"mode": "solve", "run": "nowhere", "schemes": {"one": {"solver": "rk4", "steps": [1]}}}


def swept(values, key=RATE):
    return {"sweep": {"keys": {key: values}}}


@pytest.fixture
def compared(tmp_path):
    """Makes a comparison that was changed in some keys, `a.b.c` to their values."""
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    base = {**BASE, "data": {"name": "text", "path": str(text)}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))

    def compare(tree, changes):
        tree = yaml.safe_load(yaml.safe_dump(tree))
        for key, value in changes.items():
            *above, last = key.split("/")
            section = tree
            for part in above:
                section = section[part]
            section[last] = value
        (tmp_path / "compare.yaml").write_text(yaml.safe_dump(tree))
        try:
            load_comparison(tmp_path / "compare.yaml").compare(tmp_path / "compared")
        finally:
            assert not (tmp_path / "compared").exists()

    return compare


def test_a_section_may_be_written_as_its_value():
    base = {"control": "piecewise_constant", "training": None}
    changes = [{"control": {"horizon": 3.0}, "training": {"seed": 2}}]
    config = scheme_config(base, changes, "here")
    assert (config.control.kind, config.control.horizon) == ("piecewise_constant", 3.0)
    assert config.training.seed == 2


COSTS = {"unit": "field_evaluations", "amount": 32}
LATE = {"training": {"meshes": [1, {"intervals": 1, "after": 2}]}}


@pytest.mark.parametrize(
    ("tree", "changes", "message"),
    [
        (TRAIN, {"mode": "run"}, "mode='run'; it must be train or solve"),
        (TRAIN, {"name": "../out"}, "name='../out': it names a folder"),
        (TRAIN, {"base": "none.yaml"}, "no such configuration"),
        (TRAIN, {"seds": [1]}, r"unknown key seds. Did you mean seeds\?"),
        (TRAIN, {"seeds": [1, 1]}, r"seeds=\[1, 1\]: give each of them once"),
        (TRAIN, {"budget/amount": 1e12}, r"budget.amount=1e\+12: it makes 1000000000000 "),
        (TRAIN, {"budget/amount": 0.1}, "budget.amount=0.1: it makes 0 optimiser steps"),
        (TRAIN, {"schemes/one": {"model": {"width": "8"}}}, "schemes.one: model.width='8'"),
        (TRAIN, {"schemes/()": {}}, r"schemes.\(\): it names a folder"),
        (TRAIN, {"schemes": {"a b": {}, "a_b": {}}}, "two of a b, a_b would share a folder"),
        (TRAIN, {"reference": "euler"}, "reference='euler': it must be one of one"),
        (TRAIN, swept([2.0, 1.0]), "give each value once, the least first"),
        (TRAIN, swept([0.0010001, 0.0010002]), "two of them would share a folder"),
        (TRAIN, swept([4, 8], "model.context"), "make schemes that differ"),
        (TRAIN, swept([4, 8], "training.steps"), "the budget gives the number of steps"),
        (TRAIN, swept([-1.0, 1.0]), f"sweep.keys.{RATE}.0=-1"),
        (TRAIN, swept([1.0, 2.0], "optimizer.rate"), "unknown key optimizer.rate"),
        (TRAIN, swept([1.0, 2.0]), "sweep: these data have no test part"),
        (
            TRAIN,
            {"budget": COSTS, **swept([1, 2], "solver.steps_per_interval")},
            "solver.steps_per_interval may change what a step costs",
        ),
        (TRAIN, {"budget": COSTS, "schemes/one": LATE}, "training.meshes: after=2"),
        (TRAIN, {"schemes/one": {"data": {"path": "nowhere"}}}, "nowhere: there is no such"),
        (SOLVE, {}, "nowhere: there is no such run"),
        (SOLVE, {"rounds": 1}, "rounds=1"),
    ],
)
def test_a_wrong_comparison_is_refused(compared, tree, changes, message):
    with pytest.raises(ide.InputError, match=message):
        compared(tree, changes)
