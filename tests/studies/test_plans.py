"""The runs of a comparison: the steps of its budget, the values of its sweep, and what it
refuses before anything is measured or written."""

import math

import pytest
from training.tiny_runs import configured

import ide_transformer as ide
from ide_transformer.studies.schemes import budget
from ide_transformer.studies.schemes.budget import missing, plan_refinement
from ide_transformer.studies.schemes.sweep import Sweep, Trial, tuned
from ide_transformer.training import build
from ide_transformer.training.phases import drawn_mesh


RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"


def test_the_cost_of_a_step_is_the_mean_over_its_meshes(tmp_path):
    meshes = [{"steps_per_interval": 1}, {"steps_per_interval": 4, "tokens": 4, "weight": 3}]
    small = ["model.depth=1", "model.operators=[damping]"]
    config = configured(tmp_path, [f"training.meshes={meshes}", *small])
    spent = budget.Budget(unit="field_evaluations", amount=110.0)
    drawn = [drawn_mesh(config.training, step) for step in range(20)]
    assert 0 < sum(drawn) < 20
    task = build.build_task(config)
    assert spent.steps(config, task) == round(110 / (sum((1, 4)[x] for x in drawn) / 20))
    tokens = sum((8, 4)[x] for x in drawn[:10]) / 10
    assert budget.tokens_of_a_sample(config, task, 10) == tokens


def test_a_plan_has_the_runs_that_a_budget_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "seconds_of_a_run", lambda *_: 1.0)
    small = ["model.depth=4", "model.operators=[damping]", "optimizer.warmup=0"]
    config = configured(tmp_path, small)
    rows = plan_refinement(config, budget.Budget(unit="field_evaluations", amount=20.0))
    assert [(row["overrides"], row["field_evaluations"]) for row in rows] == [
        ("training.steps=5 training.refine='{}'", 20),
        ("training.steps=8 training.refine='{0: 1, 0.5: 4}'", 20),
        ("training.steps=7 training.refine='{0: 2, 0.5: 4}'", 20),
    ]
    assert len(missing(config)) == 3
    assert not missing(configured(tmp_path, [*missing(config), "optimizer.warmup=0"]))


def off(*best):
    return lambda *values: sum(abs(math.log(x / y)) for x, y in zip(values, best, strict=True))


@pytest.mark.parametrize(
    ("keys", "extend", "loss", "most", "tried", "best", "at_edge"),
    [
        ({RATE: [1.0, 2.0, 4.0]}, 2, off(8.0), 99, 5, (8.0,), []),
        ({RATE: [1.0, 2.0, 4.0]}, 2, off(100.0), 99, 5, (16.0,), [RATE]),
        # As far as a run can have them.
        ({RATE: [1.0, 2.0, 4.0]}, 3, off(100.0), 10, 4, (8.0,), [RATE]),
        # Several keys are combined and extended each.
        ({RATE: [1.0, 2.0, 4.0], DECAY: [1.0, 3.0]}, 1, off(2, 9), 99, 9, (2.0, 9.0), [DECAY]),
        # Integers stay integers.
        ({"model.depth": [4, 8]}, 2, off(99), 99, 4, (32,), ["model.depth"]),
        # A further one would have the same folder: 1.0004² / 1.0006 is called 1, as 1.0004 is.
        ({RATE: [1.0004, 1.0006]}, 2, off(0.1), 99, 2, (1.0004,), [RATE]),
    ],
)
def test_values_go_on_where_the_best_is_at_the_edge(
    keys, extend, loss, most, tried, best, at_edge
):
    sweep, made = Sweep(keys=keys, extend=extend), []

    def measured(trial):
        made.append(trial.values)
        return loss(*trial.values)

    found = tuned("scheme", sweep, 3, measured, lambda trial: sum(trial.values) < most)
    assert found.best == Trial("scheme", best, 3) and found.at_edge == at_edge
    assert len(made) == len(set(made)) == tried
    assert list(map(type, found.best.values)) == list(map(type, best))


TRAIN = {
    "mode": "train",
    "base": "base.yaml",
    "budget": {"amount": 12},
    "schemes": {"one": {"solver": "rk4"}},
}


def swept(values, key=RATE):
    return {"sweep": {"keys": {key: values}}}


# All that is wrong is said at once.
WRONG = {"one": {"model": {"width": "8"}}, "two": {"optimizer": {"rat": 1}}}
TWICE = {"seeds": [1, 1], "schemes": WRONG}
COSTS = {"unit": "field_evaluations", "amount": 48}
LATE = {"training": {"meshes": [1, {"intervals": 1, "after": 2}]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (TWICE, r"(?s)give each of them once.*one: model.width='8'.*two: unknown key"),
        ({"schemes": {"a b": {}, "a_b": {}}}, "two of a b, a_b would share a folder"),
        (swept([0.0010001, 0.0010002]), "two of them would share a folder"),
        (swept([4, 8], "training.steps"), "the budget gives the number of steps"),
        ({"budget": COSTS, "schemes/one": LATE}, "training.meshes: after=2"),
    ],
)
def test_a_wrong_comparison_is_refused(compare, tmp_path, changes, message):
    with pytest.raises(ide.InputError, match=message):
        compare(TRAIN, **changes)
    assert not (tmp_path / "compared").exists()
