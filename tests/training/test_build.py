"""The task and the model that a configuration describes, also of classes of a user."""

import functools as ft

import diffrax
import equinox as eqx
import jax
import numpy as np
import pytest
from training import mine, stub

import ide_transformer as ide
from ide_transformer import solvers, tasks, training
from ide_transformer.equation import silu
from ide_transformer.training import build
from ide_transformer.training.names import find, snake_case
from ide_transformer.training.optimizer import decayed


OWN = {
    "data": {"name": "training.stub:Stub"},
    "model": {
        "kind": "model",
        "options": {"inputs": "training.mine:Letters", "read_out": "training.mine:Doubled"},
        "operators": ["feed_forward", "training.mine:Pull"],
        "normalization": {"kind": "training.mine:Ball", "options": {"radius": 2.0}},
        "activation": "training.mine:my_activation",
    },
    "control": "training.mine:Growing",
    "solver": {"kind": "lie_trotter", "sub_solver": "training.mine:MyHeun"},
    "training": {"gradient": "training.mine:Plain"},
}


def model_of(*overrides, **sections):
    """With weights that are drawn without compiling."""
    config = stub.config(*overrides, **sections)
    return stub.model_of(config, **training.build_task(config).sizes)


def test_schemes_by_name():
    sizes = dict(features=4, num_steps=2, operators=2)
    for written, solver in {
        "solver.kind=lie_trotter": ide.LieTrotter(diffrax.Euler()),
        "solver.kind=strang": ide.Strang(diffrax.Heun()),
        "solver={kind: strang, sub_solver: euler}": ide.Strang(diffrax.Euler()),
        "solver.kind=strang(euler)": ide.Strang(diffrax.Euler()),
        "solver.kind=adams_bashforth(3)": ide.AdamsBashforth(3),
        "solver=strang(rk4)": ide.Strang(ide.RK4()),
        "solver=algebraically_reversible(lie_trotter(heun))": (
            ide.AlgebraicallyReversible(ide.LieTrotter(diffrax.Heun()))
        ),
        "solver.kind=tsit5": diffrax.Tsit5(),
        "solver={kind: training.mine:MyHeun, options: {second: 0.75}}": mine.MyHeun(0.75),
    }.items():
        found = build.build_solver("solver", stub.config(written).solver, **sizes)
        assert found == solver
    assert stub.config().solver == stub.config("solver=lie_trotter").solver


def test_schemes_by_tolerance_and_on_constraints():
    tolerances = ("solver.kind=bosh3", "solver.rtol=1e-2", "solver.atol=1e-3")
    adaptive = model_of(*tolerances, "solver.max_steps=9", "solver.steps_for=sample")
    found = adaptive.discretization
    assert (found.stepsize_controller.rtol, found.stepsize_controller.atol) == (1e-2, 1e-3)
    assert (found.max_steps, found.steps_for) == (9, "sample")
    of_weights = model_of("model.constraint=layer_norm", "model.normalization=free")
    assert eqx.tree_equal(of_weights.solver, ide.LieTrotter(ide.Projected(diffrax.Euler())))
    # A gain for each layer and operator.
    assert of_weights.constraint.blocks[1].gain.shape == (2, 4)
    smooth = model_of("control=chebyshev", "model.constraint=nonnegative", "solver=heun")
    assert eqx.tree_equal(smooth.solver, ide.Projected(diffrax.Heun()))
    assert smooth.constraint == ide.Tied(ide.Nonnegative(), 2)
    config = stub.config(
        "training.gradient=training.mine:Plain", "training.compute_dtype=bfloat16"
    )
    given = training.with_training(smooth, config.training).discretization
    assert given.gradient == mine.Plain() and given.compute_dtype == "bfloat16"


def test_the_section_model_offers_what_operators_ask_for():
    """Their options come before it."""
    operators = """[attention,
        {kind: gated_feed_forward, options: {hidden: 12, activation: silu, bias: false}},
        relaxation,
        {kind: scaled, options: {operator:
            {kind: feature_integral, options: {normalization: sphere}}}},
        sourced_attention,
        {kind: damping, options: {rate: [0.25, 1, 2, 3]}},
        {kind: training.mine:Twice, options: {operator:
            {kind: training.mine:Pull, options: {strength: 0.5}}}}]"""
    config = stub.config(
        f"model.operators={operators}",
        *("model.bias=true", "model.damping=0.5", "model.std=0.1", "model.depth=1"),
        *("model.positions={kind: rotary, options: {base: 100.0}}", "solver=nesterov"),
    )
    build = ft.partial(training.build_model_of_size, config, {"vocabulary": 200})
    model = eqx.filter_jit(lambda key: build(key))(jax.random.key(0))
    attention, gated, relaxation, scaled, sourced, damping, twice = model.control(0.0)
    assert not attention.causal and attention.positions == ide.Rotary(base=100.0)
    assert attention.query.bias is not None and gated.inner.bias is None
    assert gated.inner.weight.shape == (4, 12) and gated.activation is silu
    assert isinstance(attention.normalization, ide.LayerNorm)
    assert relaxation.rate.tolist() == [0.5] * 4 and damping.rate.tolist() == [0.25, 1, 2, 3]
    assert isinstance(scaled.operator.normalization, ide.Sphere)
    assert scaled.operator.normalization.gain.tolist() == [1] * 4
    assert type(sourced.attention) is ide.Attention and sourced.attention.heads == 2
    assert isinstance(twice.operator, mine.Pull) and twice.operator.strength == 0.5
    assert isinstance(twice.operator.normalization, ide.LayerNorm)
    assert model.inputs.positions is None
    assert np.std(model.inputs.embedding) == pytest.approx(0.1, rel=0.1)
    # The outputs of all operators add up to the size of one.
    assert np.std(gated.outer.weight) == pytest.approx(0.1 / 7**0.5, rel=0.3)


def test_options_of_the_model(tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    model = model_of(
        *("model.activation=silu", "model.tied=false", "model.key_value_heads=1"),
        *("data.tokenizer=bpe", "data.vocabulary=300", "control.kind=piecewise_linear"),
        *("control.horizon=1.0", "model.dropout=0.1", "model.layer_drop=0.2"),
        data={"name": "text", "path": str(tmp_path / "text.txt")},
    )
    attention, feed_forward = (dropped.operator.operator for dropped in model.control.knots)
    assert isinstance(model.control.knots[0], ide.LayerDrop) and model.random
    assert attention.key.weight.shape == (3, 4, 2) and feed_forward.activation is silu
    assert attention.causal and attention.query.bias is None
    assert (model.control.num_intervals, model.control.horizon) == (2, 1.0)
    assert model.inputs.positions.shape == (4, 4) and model.read_out.weight.shape == (288, 4)
    assert model.inputs.vocabulary == 288


def test_every_class_of_a_face_is_found_by_its_name():
    for base, name in (
        (ide.AbstractOperator, "Attention"),
        (ide.AbstractConstraint, "RMSNorm"),
        (solvers.AbstractScheme, "GatedRK2"),
        (tasks.AbstractTask, "FashionMNIST"),
        (diffrax.AbstractSolver, "Suzuki4"),
        (diffrax.AbstractSolver, "Dopri5"),
    ):
        assert find("key", snake_case(name), base).__name__ == name
    with pytest.raises(
        ide.InputError, match=r"Dopri5 is not a subclass of AbstractSplitting.*Known: .*strang"
    ):
        find("key", "dopri5", solvers.AbstractSplitting)


def test_matrices_decay_and_vectors_do_not():
    model = model_of("model.bias=true", "control.kind=piecewise_constant")
    for theta in (model.control, ide.Tied(model.control(0.0), 2)):
        mark = decayed(theta)
        block = mark.blocks if isinstance(theta, ide.PiecewiseConstant) else mark.block
        assert block[0].query.weight and block[1].outer.weight
        assert not block[0].query.bias and not block[1].normalization.gain
    whole = decayed(model)
    assert whole.inputs.embedding and whole.inputs.positions
    assert not whole.read_out.normalization.gain


def test_each_stage_has_what_it_gives_and_else_what_the_model_has():
    pytest.importorskip("sklearn")
    first = {"window": 3, "stride": 2, "width": 4, "heads": 1, "depth": 1}
    second = {"width": 8, "solver": "strang", "operators": ["attention", "feed_forward"]}
    section = {"kind": "image_stage", "class_token": True, "stages": [first, second]}
    section["operators"] = ["convolutional_attention", "feed_forward"]
    model = model_of(data={"name": "digits"}, model=section)
    first, last = model.equations
    assert (first.features, first.control.num_intervals) == (4, 1)
    assert (last.features, last.control.num_intervals) == (8, 2)
    assert [type(stage.solver) for stage in model.equations] == [ide.LieTrotter, ide.Strang]
    assert first.control.blocks[0].heads == 1 and last.control.blocks[0].heads == 2
    assert type(last.control.blocks[0]) is ide.Attention
    assert (first.inputs.grid, last.inputs.grid) == ((4, 4), (2, 2))
    assert (first.inputs.prefix_tokens, last.inputs.prefix_tokens) == (0, 1)
    # Only the last stage reads classes out.
    assert first.read_out == ide.States()
    outputs = eqx.filter_eval_shape(lambda m, x: m(x), model, np.zeros((8, 8), np.float32))
    assert outputs.shape == (10,)
    alone = model_of(data={"name": "digits"}, model=section | {"stages": []})
    assert type(alone.inputs) is ide.ImageInputs and alone.inputs.grid == (8, 8)


def test_own_inputs_and_read_out_from_python():
    """A model of them is the sum that is written here."""
    model = ide.Model(
        mine.Letters.build(5, 4, 8, key=jax.random.key(1)),
        ide.Tied((mine.Pull(8, times=2),), num_intervals=2),
        ide.Free(),
        ide.Discretization(diffrax.Euler()),
        mine.Doubled(),
    )
    table, tokens = np.asarray(model.inputs.embedding), np.array([3, 1, 4])
    u = table[tokens] * 0.8**2
    normal = (u - u.mean(-1, keepdims=True)) / np.sqrt(u.var(-1, keepdims=True) + 1e-5)
    found = eqx.filter_jit(model)(tokens)
    np.testing.assert_allclose(found, 2 * normal @ table.T, rtol=1e-9)


def test_a_run_of_own_classes():
    model = model_of(**OWN)
    assert type(model.inputs) is mine.Letters and type(model.read_out) is mine.Doubled
    assert type(model.control) is mine.Growing and model.solver.sub_solver == mine.MyHeun()
    feed_forward, pull = model.control(1.0)
    assert feed_forward.activation is mine.my_activation
    assert feed_forward.normalization == mine.Ball(radius=2.0) == pull.normalization


def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, code, said in (
        (
            "broken",
            "import a_package_that_is_not_there",
            "importing broken failed.*a_package_that",
        ),
        ("worse", "1 +", "importing worse failed with SyntaxError"),
    ):
        (tmp_path / f"{name}.py").write_text(code)
        with pytest.raises(ide.InputError, match=said):
            find("key", f"{name}:A", ide.AbstractOperator)
