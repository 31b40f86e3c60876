"""Error budgets: against what is measured, and what has none."""

import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_equation
from running import run_here

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.dynamics import ErrorBudget, ErrorPart, FunctionSolve, refinements
from ide_transformer.studies.resolution import (
    problem_of,
    random_problem,
    refinement_errors,
    tried_budget,
)


@pytest.fixture(scope="module")
def trial():
    return tried_budget(random_problem(3))


@pytest.mark.heavy
def test_the_parts_add_up_to_the_error_that_is_measured(trial):
    parts = trial.budget.parts
    assert [part.resolution for part in parts] == ["tokens", "features", "depth", "splitting"]
    assert sum(part.share for part in parts) == pytest.approx(trial.budget.total, rel=1e-9)
    assert trial.budget.total == pytest.approx(trial.measured, rel=0.2)


@pytest.mark.heavy
def test_refinements_leave_what_the_budget_says(trial):
    for part in trial.budget.parts:
        assert part.left == pytest.approx(trial.left[part.resolution], rel=0.2)
    assert trial.budget.cheapest.resolution == trial.row["cheapest"]


@pytest.mark.heavy
def test_costs_count_what_a_solve_evaluates(trial):
    cost = {part.resolution: part.cost for part in trial.budget.parts}
    assert cost["depth"] == 2
    assert cost["splitting"] == 1.5
    assert 2 < cost["features"] < 4


@pytest.mark.heavy
@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5, 6, 7, 8, 9])
def test_budgets_of_random_equations(seed):
    trial = tried_budget(random_problem(seed))
    assert trial.budget.total == pytest.approx(trial.measured, rel=0.2)
    assert trial.budget.cheapest.resolution == trial.row["cheapest"]


@pytest.mark.heavy
def test_outputs_at_points_are_those_of_the_whole_domain():
    """Points without weight see the function and are not seen."""
    solve = random_problem(2)
    other = ide.TokenDomain(jnp.array([[0.3], [0.9]]))
    found = solve.outputs(other)
    seen = solve.domain.with_queries(other.points)
    values = solve.inputs(seen.points)
    for i in range(2):
        one = ide.Field(
            jnp.concatenate([values[:, : solve.tokens], values[:, solve.tokens + i, None]], 1),
            solve.domain.with_queries(other.points[i : i + 1]),
        )
        np.testing.assert_allclose(found[:, i], solve.model(one)[:, -1], atol=1e-12)
    own = solve.model(solve.inputs(solve.domain.points))
    np.testing.assert_allclose(solve.outputs(solve.domain), own, atol=1e-12)


def test_a_scheme_that_does_not_split_has_an_error_of_depth_alone():
    solve = random_problem(0)
    unsplit = solve.model.with_solver(diffrax.Euler(), steps_per_interval=2)
    assert "splitting" not in refinements(FunctionSolve.of(unsplit, solve.inputs, None))


def test_one_operator_is_not_split_and_has_a_cheapest_refinement():
    solve = random_problem(0)
    model = eqx.tree_at(
        lambda m: m.control.block, solve.model, replace_fn=lambda block: block[:1]
    )
    one = FunctionSolve.of(model, solve.inputs, 8)
    assert list(refinements(one)) == ["tokens", "features", "depth"]
    part = ErrorPart("depth", 0.1, 0.1, "8 steps", 0.06, 2.0)
    same = part._replace(resolution="splitting", left=0.1, cost=1.0)
    assert ErrorBudget(0.1, (same, part)).cheapest == part


@pytest.mark.parametrize(
    "solver",
    [
        ide.HeavyBall(),
        ide.projected(ide.Nesterov()),
        ide.Residual(),
        ide.Velocity(),
        ide.SteadyState(),
        ide.PaperSplitting(),
        ide.LearnedMultistep(4),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_schemes_that_solve_another_equation_have_none(solver):
    solve = random_problem(0)
    model = solve.model.with_solver(solver)
    with pytest.raises(ide.InputError, match=r"shorter steps \w+ does not come closer to"):
        ide.error_budget(model, solve.inputs)


def test_models_that_have_none():
    solve = random_problem(0)
    adaptive = solve.model.with_solver(
        diffrax.Tsit5(), stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3)
    )
    with pytest.raises(
        ide.InputError, match=r"drop it by with_options\(stepsize_controller=None\)"
    ):
        ide.error_budget(adaptive, solve.inputs)
    rounded = solve.model.with_options(compute_dtype="bfloat16")
    with pytest.raises(ide.InputError, match=r"drop it by with_options\(compute_dtype=None\)"):
        ide.error_budget(rounded, solve.inputs)
    text = ide.LanguageModel(
        7,
        6,
        16,
        control=make_equation().control,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        key=jax.random.key(0),
    )
    with pytest.raises(ide.InputError, match=r"inputs of the model are TextInputs"):
        ide.error_budget(text, solve.inputs)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few steps, two resolutions drawn."""
    meshes = [{"tokens": 8, "width": 8}, {"tokens": 12, "width": 12, "intervals": 4}]
    config = training.Config.model_validate(
        {
            "name": "small",
            "data": {"name": "burgers_interval", "options": {"held_out_samples": 8}},
            "model": {
                **{"kind": "operator_model", "width": 12, "modes": 4, "basis": "cosine"},
                **{"heads": 2, "depth": 2, "context": 8, "options": {"modes": 2}},
            },
            "control": {"kind": "chebyshev", "options": {"terms": 2}},
            "optimizer": {"warmup": 1},
            "training": {"steps": 8, "batch_size": 4, "log_every": 1, "meshes": meshes},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.run, "plot_run", lambda *_: None)
        return training.train(config, runs=tmp_path_factory.mktemp("runs")).path


@pytest.mark.heavy
def test_resolutions_are_drawn_in_training(run):
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = {x["field_evaluations"] for x in lines if "field_evaluations" in x}
    assert evaluations == {2.0, 4.0}
    model = training.load_model(run).model
    assert model.features == 12 and model.space.modes == 4


@pytest.mark.heavy
def test_the_script_measures_losses_of_a_run(run, capsys, tmp_path):
    output = run_here(
        capsys,
        *("evaluate.py", run, "--mesh", "tokens=8,10,width=6,intervals=3"),
        *("--part", "test", "--json", tmp_path / "losses.json"),
    )
    rows = json.loads((tmp_path / "losses.json").read_text())
    assert [row["tokens"] for row in rows] == [8, 10] and "width" in output
    task = training.evaluation_task(training.load_model(run), None, 10)
    model = training.load_model(run).model.on(ide.Mesh(width=6)).on(ide.Mesh(intervals=3))
    batch = next(task.held_out(8, part="test"))
    assert rows[1]["loss"] == pytest.approx(float(task.loss(model, batch).loss), rel=1e-5)


@pytest.mark.heavy
def test_a_run_is_evaluated_at_other_widths(run, capsys, tmp_path):
    rows = tmp_path / "widths.json"
    output = run_here(
        capsys, *("evaluate.py", run, "--mesh", "width=8,12", "--part", "test", "--json", rows)
    )
    assert "width" in output
    loaded = training.load_model(run)
    batch = next(training.evaluation_task(loaded).held_out(8, part="test"))
    for row in json.loads(rows.read_text()):
        wide = loaded.model.on(ide.Mesh(width=row["width"]))
        loss = training.evaluation_task(loaded).loss(wide, batch)
        assert row["loss"] == pytest.approx(float(loss.loss), rel=1e-5)


@pytest.mark.heavy
@pytest.mark.thorough
def test_the_script_gives_the_budget_of_a_run(run, capsys, tmp_path):
    run_here(
        capsys,
        *("resolution.py", run, "--json", tmp_path / "budget.json"),
        *("--figure", tmp_path / "errors.png"),
    )
    found = json.loads((tmp_path / "budget.json").read_text())
    assert {part["resolution"] for part in found["parts"]} >= {"tokens", "features", "depth"}
    assert (tmp_path / "errors.png").stat().st_size > 10_000


def test_what_the_script_refuses(capsys, tmp_path):
    for arguments, message in (
        ((), "give either a run or --random"),
        (("--random", "0"), "at least 1"),
        (("--random", "1", "--scheme", "etdab2"), "--scheme etdab2: it cannot solve"),
        ((tmp_path, "--scheme", "strang"), "solver.kind=strang"),
        ((tmp_path,), "neither the folder of a run"),
    ):
        assert message in run_here(capsys, "resolution.py", *arguments, expected=2)


class Decay(FunctionSolve):
    """A solve of `u_t = -u` in depth, whose tokens change nothing."""

    has_functions, domain, cost = False, None, 1.0

    def __init__(self, growth, number=8):
        vars(self).update(growth=growth, number=number)

    def finer(self, resolution, factor):
        return Decay(self.growth, self.number * factor) if resolution == "depth" else self

    def described(self, resolution):
        return f"{self.number} steps"

    def outputs(self, domain):
        return self.growth(1 / self.number) ** self.number * jnp.array([1.0, 2.0])


@pytest.mark.parametrize(
    ("growth", "order"), [(lambda h: 1 - h, 1), (lambda h: 1 - h + h**2 / 2, 2)]
)
def test_the_order_is_that_of_the_scheme(growth, order):
    """Euler and Heun. By errors against a finer solution Euler would show 1.2."""
    rows = refinement_errors(Decay(growth))
    tokens, depth = rows[:3], rows[3:]
    assert [row["order"] for row in tokens] == [None, None, None]
    assert [row["order"] for row in depth[:2]] == [None, None]
    assert depth[2]["order"] == pytest.approx(order, abs=0.15)
    coarse, finest = growth(1 / 8) ** 8, growth(1 / 128) ** 128
    assert depth[0]["error"] == pytest.approx(abs(coarse / finest - 1), rel=1e-9)


@pytest.mark.heavy
@pytest.mark.thorough
def test_orders_of_each_resolution():
    """Equal weights at midpoints are of second order for polynomials of a feature, and of at
    least that for these waves of a token; Euler's flows and the splitting of first order."""
    solve = random_problem(2)
    orders = {row["resolution"]: row["order"] for row in refinement_errors(solve)}
    assert orders["tokens"] > 1.7
    assert orders["features"] == pytest.approx(2, abs=0.3)
    assert orders["depth"] == pytest.approx(1, abs=0.3)


@pytest.mark.heavy
def test_a_run_is_a_problem_between_functions(run):
    solve = problem_of(training.load_model(run), samples=3)
    task = training.evaluation_task(training.load_model(run))
    batch = next(task.held_out(3, 3))
    np.testing.assert_allclose(solve.inputs(solve.domain.points), batch.inputs, atol=1e-6)
    assert solve.outputs(solve.domain).dtype == jnp.float64
