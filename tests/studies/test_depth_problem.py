"""Tasks of the study of depth for models of every kind, and its time."""

import jax.numpy as jnp
import numpy as np
import pytest
from golden.copies import changed_copy
from helpers import GOLDEN
from layered_models import CALIBRATION, HELD_OUT, LAYERS, model_of

import ide_transformer as ide
from ide_transformer.studies.depth import Budget, Problem, measure_coarsening
from ide_transformer.studies.depth.budget import OverBudget
from ide_transformer.studies.depth.measure import _Study
from ide_transformer.studies.depth.problem import make_problem


@pytest.mark.parametrize(
    "family, inputs",
    [
        ("vit", "images"),
        pytest.param("bert", "tokens", marks=pytest.mark.heavy),
        pytest.param("llama", "tokens", marks=pytest.mark.heavy),
    ],
)
def test_a_checkpoint_without_data_imitates_its_native_outputs(family, inputs):
    loaded = ide.load_model(GOLDEN / family)
    problem = make_problem(loaded, 3, 2)
    assert problem.loss == f"distance from the native outputs, random {inputs}"
    assert len(problem.calibration) == 3 and len(problem.held_out) == 2
    outputs = loaded.model(problem.held_out)
    assert np.abs(problem.losses(outputs)).max() < 1e-12
    assert np.allclose(problem.losses(1.1 * outputs), 0.01)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    loaded = ide.load_model(GOLDEN / "whisper")
    with pytest.raises(ide.InputError, match=r"EncoderDecoder.*or a model of images"):
        make_problem(loaded, 3, 2)
    folder = changed_copy(tmp_path, "bert")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ide.InputError, match="is no tokenizer"):
        make_problem(ide.load_model(folder), 3, 2)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_budget_shows_what_is_left_and_shares_it():
    clock, lines = Clock(), []
    budget = Budget(2.0, lines.append, clock)
    budget.plan({"a": 30.0, "b": 60.0, "c": 60.0})
    assert lines.pop() == "about 2 min in all; it is cut to 2 min"
    budget.begin("a")
    assert lines.pop() == "a  (0 s so far, about 2 min to go)"
    # A fifth of the time.
    clock.now = 23.0
    budget.check()
    clock.now = 25.0
    with pytest.raises(OverBudget):
        budget.check()
    # It took twice as long as predicted, so the others will.
    clock.now = 60.0
    budget.begin("b")
    assert lines.pop() == "b  (60 s so far, about 4 min to go)"
    budget.check(14.0)
    with pytest.raises(OverBudget):
        budget.check(16.0)
    clock.now = 121.0
    budget.begin("c", needed=True)
    budget.check()


def test_a_budget_without_a_limit_ends_nothing():
    clock, lines = Clock(), []
    budget = Budget(None, lines.append, clock)
    budget.plan({"a": 0.0, "b": 300.0})
    assert lines.pop() == "about 5 min in all; a limit cuts the search (--minutes)"
    clock.now = 1e9
    budget.begin("a")
    budget.check(1e9)
    with pytest.raises(ide.InputError, match="minutes=0; give it some time"):
        Budget(0.0)


def problem_of():
    return Problem(CALIBRATION, HELD_OUT, lambda y: jnp.mean(y**2, axis=(1, 2)))


@pytest.mark.heavy
def test_without_time_the_layers_are_ranked():
    study = measure_coarsening(model_of(), problem_of(), budget=Budget(1e-9))
    assert [row["method"] for row in study.rows] == ["native"]
    assert len(study.ranking.layers) == LAYERS
    assert study.budgets == [] and "coarsened" in study.left_out


@pytest.mark.heavy
def test_adaptive_rows_differ():
    """Both tolerances were met by the first try in every interval."""
    study = _Study(model_of(), problem_of(), Budget())
    for tolerance in (10.0, 5.0):
        study._adapt(tolerance)
    _, first, second = study.trials.rows
    assert first["layers"] == "tolerance 10" and first["field_evaluations"] == 5 * LAYERS
    assert second["field_evaluations"] > first["field_evaluations"]
    assert second["layers"] != "tolerance 5" and second["error"] != first["error"]
