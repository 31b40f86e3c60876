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


def swept(values, key=RATE):
    return {"sweep": {"keys": {key: values}}}


COSTS = {"unit": "field_evaluations", "amount": 48}
LATE = {"training": {"meshes": [1, {"intervals": 1, "after": 2}]}}


def test_all_that_is_wrong_is_said_at_once(compare, tmp_path):
    schemes = {"one": {"model": {"width": "8"}}, "two": {"optimizer": {"rat": 1}}}
    changes = {"schemes": schemes, "reference": "five", "seeds": [1, 1]}
    with pytest.raises(ide.InputError) as error:
        compare(**changes)
    twice = "seeds=[1, 1]: give each of them once; reference='five': it must be"
    wrong = "schemes.one: model.width='8'", "schemes.two: unknown key optimizer.rat."
    said = str(error.value)
    assert all(said.count(part) == 1 for part in (twice, *wrong)), said
    assert not (tmp_path / "compared").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schemes": {"a b": {}, "a_b": {}}}, "two of a b, a_b would share a folder"),
        (swept([0.0010001, 0.0010002]), "two of them would share a folder"),
        (swept([4, 8], "training.steps"), "the budget gives the number of steps"),
        (
            {"budget": COSTS, **swept([1, 2], "solver.steps_per_interval")},
            "solver.steps_per_interval may change what a step costs",
        ),
        ({"budget": COSTS, "schemes/one": LATE}, "training.meshes: after=2"),
    ],
)
def test_a_wrong_comparison_is_refused(compare, tmp_path, changes, message):
    with pytest.raises(ide.InputError, match=message):
        compare(TRAIN, **changes)
    assert not (tmp_path / "compared").exists()
