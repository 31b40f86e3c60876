"""Comparisons that cannot be made are refused before anything is measured or written."""

import pytest

import ide_transformer as ide


RATE = "optimizer.learning_rate"
TRAIN = {
    "mode": "train",
    "base": "base.yaml",
    "budget": {"amount": 12},
    "schemes": {"one": {"solver": "rk4"}},
}
SOLVE = {"mode": "solve", "run": "nowhere", "schemes": {"one": {"solver": "rk4", "steps": [1]}}}


def swept(values, key=RATE):
    return {"sweep": {"keys": {key: values}}}


COSTS = {"unit": "field_evaluations", "amount": 48}
LATE = {"training": {"meshes": [1, {"intervals": 1, "after": 2}]}}


def test_all_that_is_wrong_is_said_at_once(compare, tmp_path):
    schemes = {
        "one": {"model": {"width": "8"}},
        "two": {"optimizer": {"rat": 1}},
        "three": {"data": {"path": "nowhere"}},
        "four": {},
    }
    changes = {"schemes": schemes, "reference": "five", "seeds": [1, 1]}
    with pytest.raises(ide.InputError) as first:
        compare(TRAIN, **changes)
    with pytest.raises(ide.InputError) as second:
        compare(TRAIN, schemes=schemes, **swept([1.0, 2.0], "optimizer.rate"))
    twice = "seeds=[1, 1]: give each of them once; reference='five': it must be"
    wrong = "schemes.one: model.width='8'", "schemes.two: unknown key optimizer.rat."
    for parts, error in (
        ((twice, *wrong), first),
        ((*wrong, "nowhere: there is no such", "sweep: these data", "schemes.four: "), second),
    ):
        said = str(error.value)
        assert all(said.count(part) == 1 for part in parts), said
    assert not (tmp_path / "compared").exists()


@pytest.mark.parametrize(
    ("tree", "changes", "message"),
    [
        (TRAIN, {"mode": "run"}, "mode='run'; it must be train or solve"),
        (TRAIN, {"base": "none.yaml"}, "no such configuration"),
        (TRAIN, {"budget/amount": 1e12}, r"budget.amount=1e\+12: it allows 1000000000000 "),
        (TRAIN, {"budget/amount": 0.1}, "budget.amount=0.1: it allows 0 optimiser steps"),
        (TRAIN, {"schemes/()": {}}, r"schemes.\(\): it names a folder"),
        (TRAIN, {"schemes": {"a b": {}, "a_b": {}}}, "two of a b, a_b would share a folder"),
        (TRAIN, swept([2.0, 1.0]), "give each value once, the least first"),
        (TRAIN, swept([0.0010001, 0.0010002]), "two of them would share a folder"),
        (TRAIN, swept([4, 8], "model.context"), "make schemes that differ"),
        (TRAIN, swept([4, 8], "training.steps"), "the budget gives the number of steps"),
        (TRAIN, swept([1.0, 2.0]), "sweep: these data have no test part"),
        (
            TRAIN,
            {"budget": COSTS, **swept([1, 2], "solver.steps_per_interval")},
            "solver.steps_per_interval may change what a step costs",
        ),
        (TRAIN, {"budget": COSTS, "schemes/one": LATE}, "training.meshes: after=2"),
        (SOLVE, {}, "nowhere: there is no such run"),
    ],
)
def test_a_wrong_comparison_is_refused(compare, tmp_path, tree, changes, message):
    with pytest.raises(ide.InputError, match=message):
        compare(tree, **changes)
    assert not (tmp_path / "compared").exists()
