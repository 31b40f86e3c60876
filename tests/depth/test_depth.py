"""Depth solved anew: defects, coarser and finer meshes, the rules they are compared with."""

import itertools
import json
import subprocess
import sys

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    ROOT,
    WIDTH,
    largest,
    make_block,
    make_equation,
    observed_order,
    random_state,
)

import ide_transformer as ide
from ide_transformer.analysis import equation_defects
from ide_transformer.depth import (
    coarsen,
    coarsenings,
    defects,
    drops,
    extensions,
    fit_rates,
    in_layers,
    keep_layers,
    mergers,
    native_mesh,
    reference,
    refine,
    removal_damage,
    removal_estimate,
    richardson,
    selections,
)
from ide_transformer.depth.target import relative_error, without_padding
from ide_transformer.studies.depth import (
    at_random,
    compare_budgets,
    depth_report,
    evenly,
    first_layers,
    layer_columns,
    most_needed,
    most_turning,
    plot_depth,
    rank_layers,
)
from ide_transformer.studies.depth.ranking import spearman


CONTEXT, VOCABULARY, LAYERS = 8, 11, 4
CALIBRATION = jax.random.randint(jax.random.key(0), (4, CONTEXT), 0, VOCABULARY)
HELD_OUT = jax.random.randint(jax.random.key(9), (4, CONTEXT), 0, VOCABULARY)


def post_norm():
    """For each layer and operator a gain and a bias of their own."""

    def make(key):
        return tuple(
            ide.LayerNorm(1 + 0.1 * jax.random.normal(k, (WIDTH,)), jnp.full(WIDTH, 0.1))
            for k in jax.random.split(key)
        )

    return ide.PiecewiseConstant.build(make, LAYERS, key=jax.random.key(4))


def model_of(control=ide.PiecewiseConstant, constraint=None, scales=None):
    free = constraint is None
    normalization = ide.LayerNorm() if free else ide.Free()
    theta = control.build(
        lambda key: make_block(key, normalization=normalization), LAYERS, key=jax.random.key(1)
    )
    if scales is not None:
        theta = scaled_outputs(theta, jnp.asarray(scales))
    return ide.LanguageModel(
        VOCABULARY,
        CONTEXT,
        WIDTH,
        control=theta,
        constraint=ide.Tied(ide.Free(), LAYERS) if free else constraint,
        discretization=ide.Discretization(
            ide.LieTrotter() if free else ide.projected(ide.LieTrotter())
        ),
        input_normalization=ide.Free() if free else ide.Sphere(1.0, 0.1),
        std=0.5,
        key=jax.random.key(3),
    )


def scaled_outputs(theta, scales):
    """Layers whose operators are multiplied by these numbers."""

    def scale(linear):
        return jax.vmap(lambda x, s: jax.tree.map(lambda y: s * y, x))(linear, scales)

    return eqx.tree_at(
        lambda x: (x.blocks[0].output, x.blocks[1].outer), theta, replace_fn=scale
    )


MODELS = {
    "free": model_of,
    "post-norm": lambda: model_of(constraint=post_norm()),
    "tied": lambda: model_of(control=ide.Tied),
}


def by_hand(model, sequence):
    """The outputs after these (layer, operator) steps, one written after the other."""
    u, domain = model.embed(HELD_OUT)
    for layer, index in sequence:
        u = u + model.control(float(layer))[index](u, domain)
        constraint = model.constraint(float(layer))
        if isinstance(constraint, tuple):
            u = constraint[index].project(u)
    return model.read_out(u)


def layer_by_layer(layers):
    return [(layer, index) for layer in layers for index in (0, 1)]


# Defects.


def with_step(h):
    """One layer whose step is of size h. Being an array, h is not compiled into the solve."""
    control = jax.tree.map(
        lambda x: ide.Scaled(x, jnp.full(1, h)),
        EQUATION.control.blocks,
        is_leaf=lambda x: isinstance(x, ide.AbstractOperator),
    )
    return ide.Equation(ide.PiecewiseConstant(control), ide.Free(), EQUATION.domain)


EQUATION = make_equation(intervals=1)


@pytest.mark.parametrize(
    ("solver", "order"),
    [(ide.LieTrotter(), 1), (ide.Strang(diffrax.Heun()), 2), (diffrax.Euler(), 1)],
)
def test_step_doubling_is_of_the_order_of_the_local_error(solver, order):
    def error(steps):
        found = equation_defects(with_step(1 / steps), random_state(2), solver=solver)
        return found.step_doubling[0]

    assert abs(observed_order(error, (8, 16, 32)) - (order + 1)) < 0.15


def test_the_splitting_error_and_the_commutator_times_h_squared_fall_as_h_squared():
    def found(steps):
        solver = ide.LieTrotter(diffrax.Heun())
        return equation_defects(with_step(1 / steps), random_state(2), solver=solver)

    assert abs(observed_order(lambda n: found(n).splitting[0], (8, 16, 32)) - 2) < 0.15
    assert abs(observed_order(lambda n: found(n).commutator[0], (8, 16, 32)) - 2) < 0.15


def test_the_commutator_is_scaled_by_the_length_of_the_interval():
    whole = EQUATION.control
    halved = ide.Equation(whole.resample(2), ide.Free(), EQUATION.domain)
    found, scaled = (
        equation_defects(equation, random_state(2), solver=ide.LieTrotter()).commutator[0]
        for equation in (halved, with_step(0.5))
    )
    assert abs(found - 4 * scaled) < 1e-12


class Mixing(ide.AbstractOperator):
    matrix: jax.Array

    def __call__(self, u, domain):
        return u @ self.matrix


@pytest.mark.parametrize("commuting", [True, False])
def test_the_commutator_is_that_of_linear_operators(commuting):
    a, b = 0.3 * jax.random.normal(jax.random.key(5), (2, 3, WIDTH, WIDTH))
    b = a @ a if commuting else b
    control = ide.PiecewiseConstant((Mixing(a), Mixing(b)))
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(6))
    u0 = random_state(2)
    found = equation_defects(equation, u0, solver=ide.LieTrotter()).commutator[0]
    exact = jnp.linalg.norm(u0 @ (a[0] @ b[0] - b[0] @ a[0])) / jnp.linalg.norm(u0)
    assert abs(found - exact) < 1e-12 and (exact < 1e-12) == commuting


def test_increments_are_those_of_the_layer_states():
    model = model_of()
    us = model.solve(HELD_OUT, saveat=diffrax.SaveAt(ts=jnp.arange(LAYERS + 1.0))).us
    found, steps = defects(model, HELD_OUT), jnp.diff(us, axis=0)
    sizes = jnp.sqrt(jnp.mean(us[:-1] ** 2, axis=(1, 2, 3)))
    assert largest(found.state, sizes) < 1e-12
    assert (
        largest(found.increment, jnp.sqrt(jnp.mean(steps**2, axis=(1, 2, 3))) / sizes) < 1e-12
    )
    first, second = steps[0].ravel(), steps[1].ravel()
    cosine = first @ second / jnp.linalg.norm(first) / jnp.linalg.norm(second)
    assert jnp.isnan(found.alignment[0]) and abs(found.alignment[1] - cosine) < 1e-12


def test_padded_tokens_do_not_enter():
    equation, u0 = make_equation(causal=True), random_state(2)
    mask = jnp.arange(6) < 4
    padded = ide.Equation(equation.control, ide.Free(), equation.domain.padded(mask))
    short = ide.Equation(equation.control, ide.Free(), ide.TokenDomain.uniform(4))
    here = equation_defects(padded, u0, solver=ide.LieTrotter())
    there = equation_defects(short, u0[:, :4], solver=ide.LieTrotter())
    for x, y in zip(here, there, strict=True):
        assert largest(x[1:], y[1:]) < 1e-12
    worse = u0.at[:, 4:].add(1.0)
    errors = [
        relative_error(*(without_padding(u, domain) for u in (worse, u0)))
        for domain in (padded.domain, equation.domain)
    ]
    assert errors[0] == 0 < errors[1]


# Which layers matter.


def mean_over_tokens(outputs, inputs):
    return jnp.mean(outputs, axis=-2)


@pytest.mark.parametrize("constraint", [None, post_norm])
def test_the_estimate_ranks_layers_as_their_removal_does(constraint):
    model = model_of(constraint=constraint and constraint(), scales=[0.5, 1.2, 0.2, 0.8])
    columns = layer_columns(model, CALIBRATION)
    ranking = rank_layers(columns, removal_damage(model, HELD_OUT))
    assert ranking.correlations["estimate"] >= 0.7
    assert [row["layer"] for row in ranking.layers] == list(range(LAYERS))


@pytest.mark.parametrize("read", [None, mean_over_tokens])
def test_the_estimate_is_exact_for_small_defects(read):
    """The linearised march is the march, to first order in what is left out."""
    errors = []
    for size in (0.1, 0.01):
        model = model_of(scales=[1.0, size, 1.0, 1.0])
        estimate = removal_estimate(model, HELD_OUT, read)[1]
        errors.append(abs(estimate / removal_damage(model, HELD_OUT, read)[1] - 1))
    assert errors[1] < 0.2 * errors[0] < 0.02


def test_spearman_shares_ranks_and_leaves_out_what_is_not_known():
    x = np.array([1.0, 2.0, 2.0, 4.0, np.nan])
    y = np.array([10.0, 20.0, 30.0, 40.0, -1.0])
    assert abs(spearman(x, y) - 3 / np.sqrt(10)) < 1e-12
    assert np.isnan(spearman(x[-1:], y[-1:])) and np.isnan(spearman(np.ones(3), y[:3]))


# Coarser.


@pytest.mark.parametrize("name", MODELS)
def test_the_native_mesh_and_the_full_budget_change_nothing(name):
    model = MODELS[name]()
    assert coarsen(model, float(LAYERS), CALIBRATION) is model
    layers = in_layers(model)
    assert isinstance(layers, ide.LanguageModel)
    assert largest(layers(HELD_OUT), model(HELD_OUT)) < 1e-12


@pytest.mark.parametrize("name", MODELS)
def test_layers_and_neighbouring_operators_are_left_out(name):
    model = MODELS[name]()
    kept = keep_layers(model, [0, 2, 3])
    assert largest(kept(HELD_OUT), by_hand(model, layer_by_layer([0, 2, 3]))) < 1e-12
    coarse = list(drops(native_mesh(model)))
    whole = layer_by_layer(range(LAYERS))
    assert len(coarse) == len(whole) - 1
    for first, mesh in enumerate(coarse):
        exact = by_hand(model, whole[:first] + whole[first + 2 :])
        assert largest(mesh.model(HELD_OUT), exact) < 1e-12
    assert coarse[3].steps.tolist() == [["0", "0"], ["1", "2"], ["3", "3"]]


def test_an_extension_makes_the_step_before_longer():
    model = model_of()
    mesh = list(extensions(native_mesh(model)))[2]
    u, domain = model.embed(HELD_OUT)
    for layer, h in ((0, 2), (2, 1), (3, 1)):
        for operator in model.control(float(layer)):
            u = u + h * operator(u, domain)
    assert largest(mesh.model(HELD_OUT), model.read_out(u)) < 1e-12


def test_layers_that_came_of_halving_merge_into_the_native_ones():
    model = model_of()
    halved = eqx.tree_at(
        lambda m: (m.control, m.constraint),
        model,
        (model.control.resample(2 * LAYERS), model.constraint.resample(2 * LAYERS)),
    )
    mesh = native_mesh(halved)
    for pair in range(LAYERS):
        mesh = next(itertools.islice(mergers(mesh), pair, None))
    assert mesh.steps[:, 0].tolist() == ["0+1", "2+3", "4+5", "6+7"]
    assert largest(mesh.model(HELD_OUT), model(HELD_OUT)) < 1e-12
    assert largest(halved(HELD_OUT), model(HELD_OUT)) > 1e-3


def test_a_merger_of_equal_layers_errs_by_h_squared():
    native = native_mesh(model_of(control=ide.Tied))

    def error(steps):
        fine = jax.tree.map(
            lambda x: ide.Scaled(x.operator, x.rate / steps) if is_scaled(x) else x,
            native.model,
            is_leaf=is_scaled,
        )
        merged = next(mergers(native._replace(model=fine))).model
        return largest(merged(HELD_OUT), fine(HELD_OUT))

    assert abs(observed_order(error, (64, 128, 256)) - 2) < 0.15


def is_scaled(x):
    return isinstance(x, ide.Scaled)


def test_the_mean_of_three_layers_weighs_them_alike():
    mesh = native_mesh(model_of())
    for _ in range(2):
        mesh = next(mergers(mesh))
    merged = mesh.model.control.blocks[1]
    weights = model_of().control.blocks[1]
    for x, y in zip(jax.tree.leaves(merged.operator), jax.tree.leaves(weights), strict=True):
        assert largest(x[0], jnp.mean(y[:3], axis=0)) < 1e-12
    assert merged.rate.tolist() == [3, 1] and mesh.steps[0].tolist() == ["0+1+2"] * 2


def test_a_layer_that_does_nothing_ranks_lowest_and_goes_first():
    model = model_of(scales=[1.0, 0.0, 1.0, 1.0])
    estimate, damage = removal_estimate(model, CALIBRATION), removal_damage(model, HELD_OUT)
    assert estimate[1] == damage[1] == 0 < min(np.delete(estimate, 1))
    meshes = coarsenings(model, CALIBRATION, fit=None)
    native, first = itertools.islice(meshes, 2)
    assert (native.evaluations, first.evaluations) == (LAYERS, LAYERS - 1)
    assert first.steps[:, 0].tolist() == ["0", "2", "3"] and first.error < 1e-12
    assert largest(first.model(HELD_OUT), model(HELD_OUT)) < 1e-12


@pytest.mark.parametrize("name", ["free", "post-norm"])
def test_a_coarsened_model_costs_its_budget_and_is_an_ordinary_model(name):
    model = MODELS[name]()
    coarse = coarsen(model, 2.5, CALIBRATION, fit=None)
    assert coarse.solve(HELD_OUT).stats["field_evaluations"] == 2
    strang = coarse.with_solver(ide.projected(ide.Strang(diffrax.Heun())), steps_per_interval=2)
    assert strang(HELD_OUT).shape == (*HELD_OUT.shape, VOCABULARY)
    gradient = eqx.filter_grad(lambda m: jnp.sum(m(HELD_OUT) ** 2))(coarse)
    leaves = jax.tree.leaves(gradient.control)
    assert all(jnp.isfinite(leaf).all() for leaf in leaves) and any(
        leaf.any() for leaf in leaves
    )


@pytest.mark.parametrize("read", [None, mean_over_tokens])
@pytest.mark.parametrize("name", ["free", "post-norm"])
def test_fitted_step_sizes_lessen_the_error_also_on_other_inputs(name, read):
    model = MODELS[name]()
    coarse = keep_layers(model, [0, 1, 3])
    many = jax.random.randint(jax.random.key(5), (48, CONTEXT), 0, VOCABULARY)
    fitted = fit_rates(coarse, reference(model, many, read), steps=30)
    assert fitted.control.blocks[0].rate.shape == (3, WIDTH)
    for inputs in (many, HELD_OUT):
        before, after = (reference(model, inputs, read).error(m) for m in (coarse, fitted))
        assert after < 0.9 * before


def test_what_is_already_exact_stays_so():
    coarse = keep_layers(model_of(), [0, 1, 3])
    exact = fit_rates(coarse, reference(coarse, CALIBRATION), steps=2)
    assert largest(exact(HELD_OUT), coarse(HELD_OUT)) < 1e-12


def test_batches_of_the_fit_follow_one_another():
    """With a batch of one, three steps see the first three samples only."""
    model = model_of()
    coarse, target = keep_layers(model, [0, 1, 3]), reference(model, CALIBRATION)
    whole, three = (
        fit_rates(coarse, x, steps=3, batch=1) for x in (target, target.part(np.arange(3)))
    )
    other = fit_rates(coarse, target.part(np.array([3, 1, 2])), steps=3, batch=1)
    assert (
        largest(whole(HELD_OUT), three(HELD_OUT))
        < 1e-12
        < largest(whole(HELD_OUT), other(HELD_OUT))
    )


@pytest.mark.parametrize(
    "read", [pytest.param(None, marks=pytest.mark.heavy), mean_over_tokens]
)
def test_no_coarsening_is_worse_than_a_choice_of_layers_where_it_was_chosen(read):
    model = model_of(constraint=post_norm(), scales=[0.5, 1.2, 0.2, 0.8])
    judge = reference(model, CALIBRATION, read).part(np.array([3]))
    for coarse in itertools.islice(coarsenings(model, CALIBRATION, read=read), 1, LAYERS):
        choices = itertools.combinations(range(LAYERS), len(coarse.steps))
        least = min(judge.error(keep_layers(model, layers)) for layers in choices)
        assert abs(judge.error(coarse.model) - coarse.error) < 1e-12
        assert coarse.error <= least + 1e-12


def test_selections_are_all_choices_of_whole_native_layers():
    model = model_of()
    mesh = next(extensions(next(mergers(native_mesh(model)))))
    chosen = list(selections(mesh))
    assert [tuple(x.steps[:, 0]) for x in chosen] == [("0",), ("1",), ("2",), ("3",)]
    for layer, one in enumerate(chosen):
        exact = by_hand(model, layer_by_layer([layer]))
        assert largest(one.model(HELD_OUT), exact) < 1e-12


# Finer.


@pytest.mark.parametrize("constraint", [None, ide.Tied(ide.Sphere(1.0, 0.1), LAYERS)])
def test_refined_models_converge_and_extrapolated_ones_faster(constraint):
    model = model_of(constraint=constraint)
    fine = ide.projected(ide.Strang(diffrax.Heun()))
    exact = richardson(model.with_solver(fine), 64, HELD_OUT)
    steps = (8, 16, 32)
    refined = observed_order(lambda k: largest(refine(model, k)(HELD_OUT), exact), steps)
    assert abs(refined - 1) < 0.15
    extrapolated = observed_order(
        lambda k: largest(richardson(model, k, HELD_OUT), exact), steps
    )
    assert abs(extrapolated - 2) < 0.15


def test_layer_norm_with_a_gain_has_no_limit():
    model = model_of(constraint=post_norm())
    outputs = [refine(model, k)(HELD_OUT) for k in (8, 16, 32)]
    assert largest(outputs[2], outputs[1]) > 0.7 * largest(outputs[1], outputs[0]) > 1e-3


# The rules in use.


def test_rules_keep_the_layers_that_they_say():
    columns = layer_columns(model_of(scales=[1.0, 0.1, 1.0, 0.3]), CALIBRATION)
    assert list(first_layers(columns, 3)) == [0, 1, 2]
    assert list(evenly(columns, 3)) in ([0, 1, 3], [0, 2, 3])
    assert list(evenly(columns, 1)) == [0]
    assert list(most_turning(columns, 3)) == [0, 2, 3]
    assert list(most_turning(columns, 2)) == [0, 2]
    assert list(most_needed(columns, 3)) == [0, 2, 3]
    drawn = [[list(at_random(seed)(columns, n)) for n in (3, 2)] for seed in range(6)]
    assert drawn[0] == [list(at_random(0)(columns, n)) for n in (3, 2)]
    assert all(set(two) < set(three) and three == sorted(three) for three, two in drawn)
    assert len({tuple(two) for _, two in drawn}) > 1


def test_block_influence_is_the_mean_over_tokens_of_one_less_cosine():
    model = model_of()
    us = model.solve(HELD_OUT, saveat=diffrax.SaveAt(ts=jnp.arange(LAYERS + 1.0))).us
    u, v = us[0], us[1]
    norms = jnp.linalg.norm(u, axis=-1) * jnp.linalg.norm(v, axis=-1)
    influence = jnp.mean(1 - jnp.sum(u * v, axis=-1) / norms)
    assert abs(defects(model, HELD_OUT).turn[0] - influence) < 1e-12


def test_at_each_budget_the_best_of_either_side_is_compared_sample_by_sample():
    def row(method, evaluations, loss):
        return {"method": method, "field_evaluations": evaluations, "loss": loss}

    rows = [
        row("native", 4.0, 1.0),
        row("a", 3.0, 2.0),
        row("b", 3.0, 3.0),
        row("rule", 3.0, 2.5),
        row("failed rule", 3.0, None),
        row("a", 2.0, 4.0),
    ]
    losses = [np.full(3, row["loss"] or np.nan) for row in rows]
    losses[1] = np.array([1.0, 2.0, 3.0])
    found = compare_budgets(rows, losses, ours={"a", "b"}, theirs={"rule", "failed rule"})
    assert len(found) == 1 and found[0]["field_evaluations"] == 3
    assert (found[0]["coarsening"], found[0]["layer_dropping"]) == ("a", "rule")
    assert (found[0]["loss"], found[0]["its_loss"]) == (2.0, 2.5)
    assert found[0]["difference"] == -0.5
    assert abs(found[0]["uncertainty"] - 1 / np.sqrt(3)) < 1e-12


@pytest.mark.heavy
def test_a_report_measures_every_method_and_says_where_a_solve_failed():
    model = model_of(constraint=post_norm())

    def losses_of(outputs):
        return jnp.mean(outputs**2, axis=(1, 2))

    report = depth_report(
        model, CALIBRATION, HELD_OUT, losses_of, refinements=(2,), tolerances=(0.5, 1e-6)
    )
    by_method = {(row["method"], row["field_evaluations"]): row for row in report.rows}
    native = by_method["native", LAYERS]
    assert (native["error"], native["change"], native["uncertainty"]) == (0, 0, 0)
    exact = float(jnp.mean(model(HELD_OUT) ** 2))
    assert abs(native["loss"] - exact) < 1e-12
    refined = float(jnp.mean(refine(model, 2)(HELD_OUT) ** 2))
    assert abs(by_method["refined", 2 * LAYERS]["change"] - (refined - exact)) < 1e-12
    extrapolated = float(jnp.mean(richardson(model, 2, HELD_OUT) ** 2))
    assert abs(by_method["extrapolated", 6 * LAYERS]["loss"] - extrapolated) < 1e-10
    adaptive = [row["loss"] for row in report.rows if row["method"] == "adaptive"]
    assert adaptive[0] is not None and adaptive[1] is None
    assert [row["field_evaluations"] for row in report.budgets] == [3, 2]
    damage = [row["damage"] for row in report.ranking.layers]
    assert np.allclose(damage, removal_damage(model, HELD_OUT), rtol=1e-10)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_done_is_refused():
    model = model_of()
    with pytest.raises(ide.InputError, match=r"evaluations=0\.5.*makes 1 with LieTrotter"):
        coarsen(model, 0.5, CALIBRATION)
    with pytest.raises(ide.InputError, match="once and in order"):
        keep_layers(model, [2, 1])
    with pytest.raises(ide.InputError, match="once and in order"):
        keep_layers(model, [0, LAYERS])
    with pytest.raises(ide.InputError, match="order of"):
        richardson(model.with_solver(ide.SteadyState()), 1, HELD_OUT)


def test_figures_are_written(tmp_path):
    rows = [
        {"method": "native", "field_evaluations": 4.0, "error": 0.0, "loss": 2.0},
        {"method": "coarsened", "field_evaluations": 3.0, "error": 0.1, "loss": 2.1},
        {"method": "adaptive", "field_evaluations": 9.0, "error": None, "loss": None},
    ]
    plot_depth(tmp_path, rows)
    assert {path.name for path in tmp_path.iterdir()} == {"error.png", "loss.png"}


@pytest.mark.heavy
def test_the_script_writes_tables_and_figures(tmp_path):
    def run(script, *arguments):
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    run("train.py", ROOT / "configs/quick.yaml", "name=quick", "--runs", tmp_path)
    out = tmp_path / "out"
    run("depth.py", tmp_path / "quick", "--calibration", 4, "--held-out", 4, "--out", out)
    rows = json.loads((out / "report.json").read_text())["rows"]
    native = rows[0]
    assert native["method"] == "native" and native["error"] == 0
    assert all(row["error"] > 0 for row in rows[1:] if row["error"] is not None)
    cheaper = {
        row["method"] for row in rows if row["field_evaluations"] < native["field_evaluations"]
    }
    assert {"coarsened", "merged", "evenly spread", "random, seed 2"} <= cheaper
    for name in ("budgets", "layers"):
        assert (out / name / "report.md").exists()
    assert (out / "loss.png").exists()
