"""Comparisons that cannot be made are refused before anything is measured or written."""

import pytest
import yaml

import ide_transformer as ide
from ide_transformer.studies.schemes import load_comparison
from ide_transformer.studies.schemes.solving import SolverChoice
from ide_transformer.studies.schemes.training import scheme_config


RATE = "optimizer.learning_rate"
BASE = {
    "data": {"name": "text"},
    "model": {"width": 8, "heads": 2, "depth": 1, "context": 8},
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


@pytest.mark.parametrize("solver", ["native", {"kind": "tsit5", "rtol": 0.1, "atol": 0.1}])
def test_steps_that_would_say_nothing_are_refused(solver):
    choice = SolverChoice.model_validate({"solver": solver, "steps": [1, 2]})
    with pytest.raises(ide.InputError, match=r"schemes\.a, 2 steps: .*drop"):
        choice.settings("schemes.a")


@pytest.mark.parametrize(
    ("tree", "changes", "message"),
    [
        (TRAIN, {"mode": "run"}, "mode='run'; it must be train or solve"),
        (TRAIN, {"mode": True}, "mode=True"),
        (TRAIN, {"name": "../out"}, "name='../out': it names a folder"),
        (TRAIN, {"base": 3}, "base=3"),
        (TRAIN, {"base": "none.yaml"}, "no such configuration"),
        (TRAIN, {"seds": [1]}, r"unknown key seds. Did you mean seeds\?"),
        (TRAIN, {"seeds": []}, r"seeds=\[\]"),
        (TRAIN, {"seeds": ["1"]}, "seeds.0='1'"),
        (TRAIN, {"seeds": [1.0]}, "seeds.0=1.0"),
        (TRAIN, {"seeds": [-1]}, "seeds.0=-1"),
        (TRAIN, {"seeds": [2**64]}, "seeds.0="),
        (TRAIN, {"seeds": [1, 1]}, r"seeds=\[1, 1\]: give each of them once"),
        (TRAIN, {"budget": 3}, "budget=3"),
        (TRAIN, {"budget/amount": "2"}, "budget.amount='2'"),
        (TRAIN, {"budget/amount": 1e12}, r"budget.amount=1e\+12: it makes 1000000000000 "),
        (TRAIN, {"budget/amount": 0.1}, "budget.amount=0.1: it makes 0 optimiser steps"),
        (TRAIN, {"budget/unit": "hours"}, "budget.unit='hours'"),
        (TRAIN, {"schemes": {}}, "schemes={}"),
        (TRAIN, {"schemes/one": "rk4"}, "schemes.one='rk4'"),
        (TRAIN, {"schemes/one": {"solvr": "rk4"}}, "schemes.one: unknown key solvr"),
        (TRAIN, {"schemes/one": {"model": {"width": "8"}}}, "schemes.one: model.width='8'"),
        (TRAIN, {"schemes/()": {}}, r"schemes.\(\): it names a folder"),
        (TRAIN, {"schemes/" + "a" * 200: {}}, "aaa: it names a folder"),
        (TRAIN, {"schemes": {"a b": {}, "a_b": {}}}, "two of a b, a_b would share a folder"),
        (TRAIN, {"sweep": {"keys": {}}}, "sweep.keys={}"),
        (TRAIN, {"sweep": {"keys": {RATE: [1.0]}}}, f"sweep.keys.{RATE}="),
        (
            TRAIN,
            {"sweep": {"keys": {RATE: [2.0, 1.0]}}},
            "give each value once, the least first",
        ),
        (
            TRAIN,
            {"sweep": {"keys": {RATE: [0.0010001, 0.0010002]}}},
            r"0.0010002\]: two of them would share a folder",
        ),
        (TRAIN, {"sweep": {"keys": {"model.context": [4, 8]}}}, "make schemes that differ"),
        (
            TRAIN,
            {"sweep": {"keys": {"training.steps": [4, 8]}}},
            r"keys.training.steps=\[4, 8\]: the budget gives the number of steps",
        ),
        (
            TRAIN,
            {
                "budget": {"unit": "field_evaluations", "amount": 32},
                "sweep": {"keys": {"solver.steps_per_interval": [1, 2]}},
            },
            "solver.steps_per_interval may change what a step costs",
        ),
        (
            TRAIN,
            {
                "budget": {"unit": "field_evaluations", "amount": 32},
                "schemes/one": {"training": {"meshes": [1, {"intervals": 1, "after": 2}]}},
            },
            "training.meshes: after=2",
        ),
        (TRAIN, {"sweep": {"keys": {RATE: [-1.0, 1.0]}}}, f"sweep.keys.{RATE}.0=-1"),
        (
            TRAIN,
            {"sweep": {"keys": {"optimizer.rate": [1.0, 2.0]}}},
            "unknown key optimizer.rate",
        ),
        (TRAIN, {"sweep": {"keys": {RATE: [1.0, 2.0]}}}, "sweep: these data have no test part"),
        (TRAIN, {"sweep": {"keys": {f"{RATE}.x": [1.0, 2.0]}}}, f"{RATE} is a value"),
        (TRAIN, {"budget": None}, "budget=None"),
        (TRAIN, {"reference": "euler"}, "reference='euler': it must be one of one"),
        (TRAIN, {"schemes/one/solver": "nestrov"}, r"unknown. Did you mean nesterov\?"),
        (
            TRAIN,
            {"schemes/one/solver": {"kind": "nesterov", "options": {"momentum": 1.5}}},
            r"solver.options.momentum=1.5: Input should be in \[0, 1\)",
        ),
        (
            TRAIN,
            {"schemes/one/solver": {"kind": "nesterov", "options": {"momentun": 0.5}}},
            r"solver.options.momentun: nesterov has no such option. Did you mean momentum\?",
        ),
        (SOLVE, {"run": "nowhere"}, "nowhere: there is no such run"),
        (SOLVE, {"samples": "2"}, "samples='2'"),
        (SOLVE, {"rounds": 1}, "rounds=1"),
        (SOLVE, {"tolerance": 0}, "tolerance=0"),
        (SOLVE, {"schemes/one/steps": 4}, "schemes.one.steps=4"),
        (SOLVE, {"schemes/one/steps": [1.5]}, "schemes.one.steps.0=1.5"),
        (SOLVE, {"schemes/one/tolerances": ["1"]}, "schemes.one.tolerances.0='1'"),
        (SOLVE, {"reference": {"kind": "rk4", "steps": 2}}, "unknown key reference.steps"),
    ],
)
def test_a_wrong_comparison_is_refused(compared, tree, changes, message):
    with pytest.raises(ide.InputError, match=message):
        compared(tree, changes)
