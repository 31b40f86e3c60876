"""Studies of a model as a controlled system, one whose layers multiply the state by
`a_n = 1 - c_n`, so that all that they say can be written down; of schemes, orders and runs."""

import dataclasses
import html
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

import ide_transformer as ide
from ide_transformer import contrib, dynamics, load_run
from ide_transformer.contrib import controlled, steering
from ide_transformer.contrib.depth_problem import Problem
from ide_transformer.contrib.readings import GROUPS, Pairs
from ide_transformer.figures import save_figure
from ide_transformer.studies.convergence import find_scheme, measure_order, schemes
from ide_transformer.training import LoadedModel, run_task
from ide_transformer.training.configuration.reader import spelled_scheme
from tests.helpers import built
from tests.running import run_here, write_run
from tests.studies.conftest import go_on


RATES = np.array([0.1, 0.3, 0.2])
FACTORS = 1 - RATES
# Of what is done at the end of a layer, what is left at the end of all.
AFTER = np.array([FACTORS[n + 1 :].prod() for n in range(3)])
INPUTS = np.random.default_rng(0).integers(0, 2, (GROUPS, 4))


def losses_of(outputs):
    """Losses of degree two, so that `⟨p, u⟩` is twice the loss at all depths."""
    return jnp.mean(outputs**2, axis=(1, 2))


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """The model that studies load, and their problem."""
    model = built(
        lambda: ide.LanguageModel(
            *(2, 4, 4),
            control=ide.PiecewiseConstant((ide.Damping(jnp.zeros(3)),)),
            constraint=ide.Free(),
            mesh=ide.Mesh(solver=diffrax.Euler()),
            output_normalization=ide.Free(),
            key=jax.random.key(0),
        )
    )
    control = ide.PiecewiseConstant((ide.Damping(jnp.asarray(RATES)),))
    model = dataclasses.replace(model, control=control)
    for study in (controlled, steering):
        monkeypatch.setattr(
            study, "load_model", lambda path, **_: LoadedModel(model, None, Path(path))
        )
        monkeypatch.setattr(
            study, "make_problem", lambda *_: Problem(INPUTS, INPUTS, losses_of)
        )
    return model


def embedded(model):
    table, places = np.asarray(model.inputs.embedding), np.asarray(model.inputs.positions)
    return table[INPUTS] + places, table


@pytest.mark.filterwarnings("ignore:All-NaN")  # the exponents of all samples are the same
def test_a_model_read_as_a_controlled_system(model, tmp_path, monkeypatch):
    parts = []
    monkeypatch.setattr(controlled, "write_page", lambda *page: parts.extend(page[-1]))
    rows = controlled.study_dynamics("it", tmp_path, samples=GROUPS + 5, predict=True)
    u0, table = embedded(model)
    u1 = u0 * FACTORS.prod()
    logits = u1 @ table.T
    loss = np.mean(logits**2)
    slope = 2 / logits.size * logits @ table
    for n, (row, c) in enumerate(zip(rows, RATES, strict=True)):
        before, left = FACTORS[:n].prod(), AFTER[n] * FACTORS[n]
        expected = {
            "layer": n,
            "hamiltonian, Damping": -2 * c * loss,
            "stationarity, Damping": 2 * loss,
            "costate": np.sqrt(np.mean((slope * left) ** 2)),
            "state": np.sqrt(np.mean((u0 * before) ** 2)),
            "log_norm": -c,
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-6), name
    written = json.loads((tmp_path / "dynamics.json").read_text())
    assert written["samples"] == GROUPS  # there are no more
    assert written["layers"] == rows and "heads" not in written
    assert written["exponents"] == pytest.approx([np.log(FACTORS).sum() / 3] * 8)
    # Without a layer the loss is larger by 1/a², and with two steps in it by (1 - c/2)⁴/a²:
    # both grow with c, as -⟨p, A(u)⟩ = 2 c J does, and the log-norm falls.
    found = {(row["reading"], row["measured"]): row for row in written["predictions"]}
    for pair, sign in (
        (("-⟨p, A_i(u)⟩", "loss without it"), 1),
        (("log-norm", "loss with two steps in it"), -1),
    ):
        row = found[pair]
        assert [row[x] for x in ("correlation", "low", "high")] == pytest.approx([sign] * 3)
    titles = [part.title for part in parts]
    assert titles[0] == "What the loss feels" and titles[-1] == "Numbers"
    assert "What the readings predict" in titles and "Scales" not in titles


def test_correlations_are_those_of_the_means_over_groups():
    """Units in their order, and in the opposite one in a group that weighs less."""
    units = np.arange(5.0)
    pairs = Pairs("a", "b", "layers", np.stack([units, units]), np.stack([3 * units, -units]))
    row = pairs.row()
    assert row["correlation"] == pytest.approx(1) and row["units"] == "5 layers"
    # A draw of the second group alone turns the order.
    assert row["low"] == pytest.approx(-1) and row["high"] == pytest.approx(1)


def test_steering_takes_the_least_energy(model, tmp_path, monkeypatch):
    """A push in layer n moves the log-odds by `AFTER_n (e - e')·v`: the least energy that moves
    them by g is `g² / |e - e'|² Σ AFTER²`, and the sum is over the layers that may push."""
    monkeypatch.setattr(steering, "_most", lambda aim: np.full(GROUPS, -np.inf))
    monkeypatch.setattr(steering, "_OPTIMISED", 1)
    given = dict(probability=0.9, samples=GROUPS, tokens=3, iterations=4)
    row = steering.study_steering("it", tmp_path, **given)
    assert row["inputs"] == row["reached"] == row["possible"] == GROUPS
    share = AFTER**2 / np.sum(AFTER**2)
    assert row["share of each layer"] == pytest.approx(share)
    for q in (5, 50, 95):
        assert row[f"ratio, {q} %"] == pytest.approx(share.max())
    assert row["best layer"] == [0, 0, GROUPS] and row["at most a third"] == 0
    assert row["above the optimiser"] == pytest.approx([0], abs=1e-2)
    assert json.loads((tmp_path / "steering.json").read_text()) == row
    assert (tmp_path / "steering.png").exists()
    # To what is less likely now, from the first three tokens.
    aim = steering.Aim.drawn(LoadedModel(model, None, Path("it")), GROUPS, 3)
    u0, table = embedded(model)
    np.testing.assert_array_equal(aim.targets, np.argmin(u0[:, 2] @ table.T, axis=1))
    with pytest.raises(ide.InputError, match=r"probability=1: give one between 0 and 1"):
        steering.study_steering("it", tmp_path, **given | {"probability": 1})
    few = Problem(INPUTS, INPUTS[:2], losses_of)
    monkeypatch.setattr(controlled, "make_problem", lambda *_: few)
    with pytest.raises(ide.InputError, match="samples=2: correlations need 8 groups"):
        controlled.study_dynamics("it", tmp_path, samples=9, predict=True)
    with pytest.raises(ide.InputError, match="steered to a class or to the next token"):
        steering.Aim.drawn(LoadedModel(Mock(), None, Path("it")), GROUPS, 3)
    steer = contrib.steering.steer

    def missed(*given, **others):
        """The first input is steered by pushes in all layers alone."""
        found = steer(*given, **others)
        return found._replace(reached=found.reached.at[0].add(1.0 * ("intervals" in others)))

    monkeypatch.setattr(dynamics, "steer", missed)
    assert steering.study_steering("it", tmp_path, **given)["best layer"] == [0, 0, GROUPS - 1]


def test_schemes_solve_the_weights_of_a_run(tiny_run, tmp_path, capsys):
    """The equation of the run is `u' = -c u`: a step multiplies by `1 - c h`, and of Heun's
    method by `1 - c h + (c h)² / 2`."""
    tree = {
        **{"mode": "solve", "run": str(tiny_run), "samples": 4, "rounds": 2},
        **{"reference": {"kind": "rk4", "steps": 64}, "tolerance": 0.01},
        "schemes": {
            "euler": {"solver": "euler", "steps": [1]},
            "heun": {"solver": "heun", "steps": [1]},
            "adaptive": {"solver": "tsit5", "tolerances": [0.01]},
        },
    }
    path, folder = tmp_path / "small.yaml", tmp_path / "compare/small"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    command = "compare", path, "--runs", tmp_path / "compare"
    assert run_here(capsys, *command).count(": measured\n") == 3
    report = json.loads((folder / "report.json").read_text())
    rows = report["rows"]
    model, run = load_run(tiny_run)
    assert "at step 3 (" in report["about"] and "on 4 samples of 8 tokens" in report["about"]
    # Evenly spread over the part.
    task = run_task(run)
    u0 = np.asarray(model.inputs.embed(next(task.held_out(4, 4)).inputs)[0])
    assert len(list(task.held_out(1))) > 8
    c = np.asarray(model.control.blocks[0].rate, np.float64)  # [layers, features]
    exact = u0 * np.prod(np.exp(-c), axis=0)
    factors = 1 - c, 1 - c + c**2 / 2
    for row, factor in zip(rows, factors, strict=False):
        error = np.linalg.norm(u0 * np.prod(factor, axis=0) - exact) / np.linalg.norm(exact)
        assert row["error"] == pytest.approx(error, rel=1e-3)
    assert [row["field_evaluations"] for row in rows[:2]] == [4, 8]
    assert all(row["mebibytes"] > 0 and row["milliseconds"] > 0 for row in rows)
    assert (folder / "work_precision_field_evaluations.png").exists()
    # So are those of a run that goes on. What is kept is of the same weights.
    going = shutil.copytree(tiny_run, tmp_path / "going")
    (going / "summary.json").unlink()
    one = {"run": str(going), "schemes": {"euler": tree["schemes"]["euler"]}}
    path.write_text(yaml.safe_dump({**tree, **one}))
    assert "[1/1] euler, 1 steps: kept" in run_here(capsys, *command)
    go_on(going, 4)
    assert "[1/1] euler, 1 steps: measured" in run_here(capsys, *command)
    # A reference that is no better than what it judges is refused.
    poor = {"reference": {"kind": "euler", "steps": 2}, "tolerance": 1e-6}
    path.write_text(yaml.safe_dump({**tree, **poor}))
    assert "more than tolerance=1e-06" in run_here(capsys, *command, expected=2)


LAYERS = "piecewise_constant"


def test_a_scheme_of_your_own_is_measured_as_ours_are():
    check(measure_order("tests.training.mine:MyHeun", LAYERS, "sphere"))
    assert find_scheme("residual(tests.training.mine:MyHeun)")[1].sphere is None


def check(row):
    # The range of schemes of order five and more ends at rounding.
    bound = 0.4 if row.expected_order >= 5 else 0.15
    assert abs(row.observed_order - row.expected_order) < bound, row
    if row.constraint != "free":
        assert row.constraint_residual < 1e-12


@pytest.mark.heavy
@pytest.mark.thorough
def test_the_splitting_of_the_paper_converges_only_in_its_consistent_variant():
    printed = measure_order("paper_splitting", LAYERS, "sphere")
    consistent = measure_order("consistent_paper_splitting", LAYERS, "sphere")
    check(printed)
    check(consistent)
    assert printed.errors[-1] > 10 * consistent.errors[-1]


@pytest.mark.heavy
def test_the_table_of_orders(tmp_path, capsys):
    """Strang with Euler: the sub-steps are what is wrong; with RK4, the splitting."""
    table, figure = tmp_path / "orders.json", tmp_path / "orders.png"
    expected = {"strang(euler)": 1, "strang(rk4)": 2, "rk4": 4}
    options = [x for scheme in expected for x in ("--scheme", scheme)]
    files = ["--constraint", "free", "--json", str(table), "--figure", str(figure)]
    chosen = [*options, "--control", "chebyshev", *files]
    run_here(capsys, "convergence", *chosen)
    rows = {row["scheme"]: row for row in json.loads(table.read_text())}
    assert {name: row["expected_order"] for name, row in rows.items()} == expected
    for row in rows.values():
        assert abs(row["observed_order"] - row["expected_order"]) < 0.15
        assert (row["control"], row["constraint"]) == ("chebyshev", "free")
    euler, rk4, plain = rows.values()
    assert euler["sub_step_error"] > 20 * euler["splitting_error"]
    assert rk4["splitting_error"] > 20 * rk4["sub_step_error"]
    assert plain["splitting_error"] is None
    assert figure.exists()


def test_a_scheme_is_spelled_as_in_configurations():
    assert find_scheme("strang") == ("strang(heun)", schemes()["strang(heun)"])
    for name in schemes():
        scheme = name.removesuffix(", exact damping")
        assert spelled_scheme(scheme) == scheme


def test_a_page_shows_what_runs_logged_drew_and_wrote(tmp_path, capsys):
    end = {"validation_loss": 1.25, "validation_exact_match": 0.0, "bad_steps": 0}
    end |= {"steps": 3, "nfe": 2, "parameters": 7, "seconds": 1.0}
    smooth = write_run(tmp_path / "smooth", solver="nesterov", losses=[3.0, 2.0, 1.5], **end)
    going = write_run(tmp_path / "going_on", solver="rk4", losses=[3.5, 2.5])
    (smooth / "sample.txt").write_bytes(b"To <be\xff\n")
    save_figure(Figure(), smooth / "plots/state_norm.png")
    page = tmp_path / "report.html"
    run_here(capsys, "report", smooth, going, "--output", page)
    text = page.read_text(encoding="utf-8")
    assert "Not finished: going_on." in text and html.escape("To <be\ufffd") in text
    assert "<td>1.25</td>" in text and "<td>2.5</td>" in text and "nesterov" in text
    assert "validation exact match</th>" in text and "bad steps</th>" not in text
    assert text.count("data:image/png") == 1 and 'alt="smooth, state norm"' in text
    assert "<th>smooth</th><th>going_on</th>" in text
    assert text.count("data:image/svg+xml") == 1
