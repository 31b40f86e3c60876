"""The task and the model that a configuration describes, also of classes of a user."""

import functools as ft

import diffrax
import equinox as eqx
import jax
import numpy as np
import pytest
import yaml

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.equation import silu
from ide_transformer.training.configuration.names import KINDS
from ide_transformer.training.setup import setup
from ide_transformer.training.steps.equations import offers_of
from ide_transformer.training.steps.phases import build_first_model
from tests.helpers import filled
from tests.training import mine, stub


def model_of(*overrides, **sections):
    config = stub.config(*overrides, **sections)
    return stub.model_of(config, **training.build_task(config).sizes)


def test_schemes_by_name():
    sizes = dict(features=4, num_steps=2, operators=2)
    for written, solver in {
        "solver.kind=strang": ide.Strang(diffrax.Heun()),
        "solver={kind: strang, options: {sub_solver: euler}}": ide.Strang(diffrax.Euler()),
        "solver.kind=strang(rk4)": ide.Strang(ide.RK4()),
        "solver.kind=adams_bashforth(3)": ide.AdamsBashforth(3),
        "solver=algebraically_reversible(lie_trotter(heun))": (
            ide.AlgebraicallyReversible(ide.LieTrotter(diffrax.Heun()))
        ),
        "solver={kind: tests.training.mine:MyHeun, options: {second: 0.75}}": mine.MyHeun(0.75),
        "solver={kind: nesterov, options: {momentum: [[0.5, 0.9]], gain: 2}}": (
            ide.contrib.Nesterov(np.array([[0.5, 0.9]]), gain=2.0)
        ),
    }.items():
        offers = {diffrax.AbstractSolver: sizes}
        assert eqx.tree_equal(stub.config(written).solver.spec.make(offers), solver)
    assert stub.config().solver == stub.config("solver=lie_trotter").solver


def test_schemes_by_tolerance_and_on_constraints():
    tolerances = ("solver.kind=bosh3", "solver.rtol=1e-2", "solver.atol=1e-3")
    mesh = model_of(*tolerances, "solver.max_steps=9").mesh
    assert (mesh.rtol, mesh.atol) == (1e-2, 1e-3)
    assert mesh.max_steps == 9
    of_weights = model_of("model.constraint=layer_norm", "model.normalization=free")
    assert eqx.tree_equal(of_weights.solver, ide.LieTrotter())
    # A gain for each layer and operator.
    assert of_weights.constraint.blocks[1].gain.shape == (2, 4)
    smooth = model_of("control=chebyshev", "model.constraint=nonnegative", "solver=heun")
    assert eqx.tree_equal(smooth.solver, diffrax.Heun())
    assert smooth.constraint == ide.Tied(ide.Nonnegative(), 2)


def test_the_section_model_offers_what_operators_ask_for():
    operators = """[attention,
        {kind: gated_feed_forward, options: {hidden: 12, activation: silu, bias: false}},
        {kind: scaled, options: {operator:
            {kind: feature_integral, options: {normalization: sphere}}}},
        {kind: damping, options: {rate: [0.25, 1, 2, 3]}},
        {kind: tests.training.mine:Twice, options: {operator:
            {kind: tests.training.mine:Pull, options: {strength: 0.5}}}}]"""
    config = stub.config(
        f"model.operators={operators}",
        *("model.bias=true", "model.std=0.1", "model.layers=1"),
        *("model.positions={kind: rotary, options: {base: 100.0}}", "solver=nesterov"),
    )
    build = ft.partial(training.build_model_of_size, config, {"vocabulary": 200})
    key = jax.random.key(0)
    model = filled(eqx.filter_eval_shape(build, key), 1.0, seed=0)
    attention, gated, scaled, _, twice = model.control(0.0)
    assert not attention.causal and attention.positions == ide.Rotary(base=100.0)
    assert attention.query.bias is not None and gated.inner.bias is None
    assert gated.inner.weight.shape == (4, 12) and gated.activation is silu
    assert isinstance(attention.normalization, ide.LayerNorm)

    assert isinstance(scaled.operator.normalization, ide.Sphere)
    assert isinstance(twice.operator, mine.Pull) and twice.operator.strength == 0.5
    assert isinstance(twice.operator.normalization, ide.LayerNorm)
    assert model.inputs.positions is None

    @jax.jit
    def drawn(key):
        model = build(key)
        _, gated, _, damping, _ = model.control(0.0)
        return model.inputs.embedding, gated.outer.weight, damping.rate

    embedding, outer, rate = drawn(key)
    assert rate.tolist() == [0.25, 1, 2, 3]
    assert np.std(embedding) == pytest.approx(0.1, rel=0.1)
    # The outputs of all operators add up to the size of one.
    assert np.std(outer) == pytest.approx(0.1 / 5**0.5, rel=0.3)


def test_a_run_offers_what_the_reader_expects():
    for kind, arguments in offers_of(training.ModelConfig(), causal=False).items():
        assert KINDS[kind].offers == arguments.keys()


OF_THE_USER = {
    "name": "own",
    "data": {"name": "tests.training.mine:Counting", "options": {"top": 6}},
    "model": {
        "kind": "model",
        "options": {
            "inputs": "tests.training.mine:Letters",
            "read_out": "tests.training.mine:Doubled",
        },
        "operators": [{"kind": "tests.training.mine:Pull", "options": {"strength": 0.5}}],
        "constraint": {"kind": "tests.training.mine:Ball", "options": {"radius": 0.25}},
    },
    "control": "tests.training.mine:Straight",
    "solver": "tests.training.mine:MyHeun",
}


def test_a_class_of_a_user_stands_for_each_kind_of_part(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(stub.tree(**OF_THE_USER)))
    config = training.load_config(path)
    run = stub.start_run(config, tmp_path / "runs")
    setup(config).check_shapes()
    model, run = training.load_run(run.path, trust=True)
    assert isinstance(training.build_task(run.load_config()), mine.Counting)
    assert isinstance(model.inputs, mine.Letters) and model.inputs.vocabulary == 7
    assert isinstance(model.read_out, mine.Doubled)
    assert isinstance(model.control, mine.Straight) and model.layers == 2
    assert isinstance(model.control(0.0)[0], mine.Pull)
    assert model.constraint(0.0) == mine.Ball(0.25)
    assert isinstance(model.solver, mine.MyHeun)


def test_options_of_the_model(tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    model = model_of(
        *("model.activation=silu", "model.tied=false", "model.key_value_heads=1"),
        *("data.tokenizer=bpe", "data.vocabulary=300", "control.kind=piecewise_linear"),
        *("control.horizon=1.0", "model.dropout=0.1"),
        data={"name": "text", "path": str(tmp_path / "text.txt")},
    )
    attention, feed_forward = (dropped.operator for dropped in model.control.knots)
    assert isinstance(model.control.knots[0], ide.Dropout) and model.random
    assert attention.key.weight.shape == (3, 4, 2) and feed_forward.activation is silu
    assert attention.causal and attention.query.bias is None
    assert (model.control.layers, model.control.horizon) == (2, 1.0)
    assert model.inputs.positions.shape == (4, 4) and model.read_out.weight.shape == (288, 4)


def test_inputs_and_read_outs_of_the_package_have_the_sizes_of_the_data():
    inputs = "inputs: {kind: image_inputs, options: {stride: 2}}, read_out: mean_head"
    parts = f"model.options={{{inputs}}}", "model.class_token=true", "model.dropout=0.25"
    config = stub.config("model.kind=model", *parts)
    model = stub.model_of(config, image_shape=(4, 4, 1), classes=3)
    assert (model.inputs.features, model.inputs.prefix_tokens) == (4, 1)
    assert model.inputs.dropout == 0.25 and model.random


def test_each_stage_has_what_it_gives_and_else_what_the_model_has():
    first = {"window": 3, "stride": 2, "width": 4, "heads": 1, "layers": 1}
    second = {"width": 8, "solver": "strang", "operators": ["attention", "feed_forward"]}
    section = {"kind": "image_stage", "class_token": True, "stages": [first, second]}
    section["operators"] = ["convolutional_attention", "feed_forward"]
    config = stub.config(data={"name": "digits"}, model=section)
    model = stub.model_of(config, image_shape=(8, 8, 1), classes=10)
    first, last = model.equations
    assert [(x.features, x.control.layers) for x in (first, last)] == [(4, 1), (8, 2)]
    assert [type(x.solver) for x in (first, last)] == [ide.LieTrotter, ide.Strang]
    assert [x.control.blocks[0].heads for x in (first, last)] == [1, 2]
    assert type(last.control.blocks[0]) is ide.Attention
    assert (first.inputs.grid, last.inputs.grid) == ((4, 4), (2, 2))
    assert (first.inputs.prefix_tokens, last.inputs.prefix_tokens) == (0, 1)
    # A token of the data is one of the first stage.
    assert training.build_task(config).tokens_per_sample == 4 * 4
    # Only the last stage reads classes out.
    assert first.read_out == ide.models.States()


def test_stages_are_refined_up_to_the_same_depth():
    stages = [{"window": 2, "control": "piecewise_constant"}, {"window": 2}]
    model = {"kind": "image_stage", "stages": stages}
    refine = {"schedule": [{"until": 2, "mesh": {"layers": 1}}]}
    config = stub.config(data={"name": "digits"}, model=model, training=refine)
    sizes = {"image_shape": (8, 8, 1), "classes": 10}
    first = build_first_model(
        config, lambda layers: stub.model_of(config, layers=layers, **sizes)
    )
    depths = [(x.control.layers, x.control.horizon) for x in first.equations]
    assert depths == [(1, 2.0)] * 2
