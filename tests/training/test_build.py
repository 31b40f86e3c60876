"""The task and the model that a configuration describes."""

import diffrax
import equinox as eqx
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first
from hypothesis import strategies as st

import ide_transformer as ide
from ide_transformer import solvers, tasks, training
from ide_transformer.equation import silu
from ide_transformer.training.choice import SchemeConfig
from ide_transformer.training.names import find, snake_case
from ide_transformer.training.optimizer import decayed


def small(tmp_path, *overrides):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    path = tmp_path / "small.yaml"
    path.write_text(
        f"data: {{name: text, path: {text}}}\nmodel: {{width: 16, depth: 2, context: 8}}\n"
    )
    return training.load_config(path, overrides)


def build(tmp_path, *overrides):
    config = small(tmp_path, *overrides)
    task = training.build_task(config)
    return training.build_model(config, task, jax.random.key(0)), task


@pytest.mark.parametrize(
    ("overrides", "solver"),
    [
        ([], ide.LieTrotter(diffrax.Euler())),
        (["solver.kind=strang"], ide.Strang(diffrax.Heun())),
        (["solver.kind=strang", "solver.sub_solver=euler"], ide.Strang(diffrax.Euler())),
        (["solver.kind=strang(euler)"], ide.Strang(diffrax.Euler())),
        (["solver.kind=adams_bashforth(3)", "control=tied"], ide.AdamsBashforth(3)),
        (["solver=strang(rk4)"], ide.Strang(ide.RK4())),
        (
            ["solver.kind=algebraically_reversible(lie_trotter(heun))"],
            ide.AlgebraicallyReversible(ide.LieTrotter(diffrax.Heun())),
        ),
        (["solver.kind=rk4"], ide.RK4()),
        (["solver.kind=tsit5"], diffrax.Tsit5()),
        (
            ["model.constraint=layer_norm", "model.normalization=free"],
            ide.LieTrotter(ide.Projected(diffrax.Euler())),
        ),
        (["model.constraint=sphere", "solver.kind=heun"], ide.Projected(diffrax.Heun())),
    ],
)
def test_schemes_by_name(tmp_path, overrides, solver):
    model, _ = build(tmp_path, *overrides)
    assert eqx.tree_equal(model.solver, solver)


@pytest.mark.parametrize(
    "overrides",
    fast_first(
        2,
        [
            ["control.kind=tied", "model.constraint=rms_norm", "model.normalization=free"],
            [
                *("model.activation=silu", "model.positions=rotary", "model.tied=false"),
                *("model.key_value_heads=2", "model.normalization=rms_norm", "model.bias=true"),
                *("data.tokenizer=bpe", "data.vocabulary=300", "control.kind=piecewise_linear"),
            ],
            [
                "model.operators=[linear_attention, gaussian_attention, {kind: convolution, "
                "options: {depthwise: true}}, relaxation]",
                "model.positions={kind: linear_bias, options: {heads: 4}}",
            ],
            [
                *("model.operators=[feed_forward, attention]", "model.dropout=0.1"),
                *("solver.kind=bosh3", "solver.rtol=1e-2", "solver.atol=1e-2"),
            ],
        ],
    ),
)
def test_options_of_the_model(tmp_path, overrides):
    model, task = build(tmp_path, *overrides)
    batch = task.batch(0, 2, 0)
    loss = task.loss(model, batch, jax.random.key(1)).loss
    assert abs(float(loss) - np.log(task.tokenizer.vocabulary)) < 0.5


def test_what_the_section_model_offers(tmp_path):
    """Operators are given what they ask for; their options come before it."""
    options = "{kind: gated_feed_forward, options: {hidden: 12, activation: silu, bias: false}}"
    model, _ = build(
        tmp_path,
        f"model.operators=[attention, {options}, relaxation, {{kind: scaled, options: "
        "{operator: {kind: feature_integral, options: {normalization: sphere}}}}, "
        "{kind: sourced_attention, options: {attention: {kind: attention, options: {window: "
        "3}}}}]",
        "model.bias=true",
        "model.damping=0.5",
        "model.positions={kind: rotary, options: {base: 100.0}}",
    )
    attention, gated, relaxation, scaled, sourced = model.control(0.0)
    assert attention.causal and attention.positions == ide.Rotary(base=100.0)
    assert attention.query.bias is not None and gated.inner.bias is None
    assert gated.inner.weight.shape == (16, 12) and gated.activation is silu
    assert isinstance(attention.normalization, ide.LayerNorm)
    assert relaxation.rate.shape == (16,) and (np.asarray(relaxation.rate) == 0.5).all()
    assert isinstance(scaled.operator.normalization, ide.Sphere)
    assert scaled.operator.normalization.gain.shape == (16,)
    assert sourced.attention.region.window == 3 and sourced.attention.causal
    assert model.inputs.positions is None


def test_arrays_of_numbers_are_options(tmp_path):
    rates = ", ".join(["0.25"] * 16)
    model, _ = build(
        tmp_path, f"model.operators=[{{kind: damping, options: {{rate: [{rates}]}}}}]"
    )
    assert model.control(0.0)[0].rate.tolist() == [0.25] * 16
    message = r"model.operators.0.options.rate='3': Input should be a valid"
    with pytest.raises(ide.InputError, match=message):
        build(tmp_path, "model.operators=[{kind: damping, options: {rate: '3'}}]")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["solver.kind=strng"],
            r"solver.kind=strng: unknown. Did you mean strang\?.*lie_trotter",
        ),
        (["control.kind=spline"], "control.kind=spline: unknown.*piecewise_linear.*tied"),
        (["solver.sub_solver=eulr"], r"solver.sub_solver.kind=eulr.*Did you mean euler\?"),
        (
            ["solver.kind=heun", "solver.sub_solver=euler"],
            "solver.sub_solver: heun has no scheme inside it",
        ),
        (["solver.kind=half_solver"], "half_solver needs solver; give solver.sub_solver"),
        (["solver.kind=strang(heun"], r"'strang\(heun' is no scheme; write .*strang\(heun\)"),
        (["solver.kind=adams_bashfort(3)"], "solver.kind=adams_bashfort: unknown. Did you"),
        (["solver.kind=rk4(heun)"], "solver.sub_solver: rk4 has no scheme inside it"),
        (
            ["solver.kind=strang(heun)", "solver.sub_solver=rk4"],
            "both give the scheme inside; set one of them to null",
        ),
        (["solver.kind=milstein"], "solver.kind=milstein: unknown"),
        (["solver.kind=diffrax:ItoMilstein"], "ItoMilstein is not for configurations"),
        (["model.width=130"], "model.operators.0: Attention: heads=4 do not divide"),
        (["model.activation=sin"], "unknown. Known: gelu, gelu_tanh, quick_gelu, relu, silu"),
        (
            ["model.operators=[{kind: scaled, options: {operator: galerkin_attention}}]"],
            "data.name=text: operator 0, GalerkinAttention, sees later tokens",
        ),
        (["data.path=null"], "data: text needs path; give data.path"),
        (["data.name=shakespeare"], "data.path: shakespeare has no such option"),
        (["data.tokenizer=word"], "data.tokenizer='word': Input should be 'characters'"),
        (
            ["data.name=digits", "data.path=null"],
            "model.kind=language_model: .*TextInputs and TokenLogits, .*data.name=digits is .*"
            "AbstractImageInputs and AbstractClassifier; write model.kind=image_classifier",
        ),
    ],
)
def test_names_and_options_that_do_not_fit(tmp_path, overrides, message):
    with pytest.raises(ide.InputError, match=message):
        build(tmp_path, *overrides)


_PLAIN = st.sampled_from(["euler", "heun", "rk4", "leapfrog", "adams_bashforth(3)"])
_OUTER = st.sampled_from(["strang", "lie_trotter", "residual", "algebraically_reversible"])


@hypothesis.settings(deadline=None)
@hypothesis.given(
    st.recursive(_PLAIN, lambda inner: st.builds("{}({})".format, _OUTER, inner), max_leaves=4)
)
def test_the_name_of_a_scheme_is_read_as_it_is_written(text):
    config = SchemeConfig.model_validate(text)
    assert str(config) == text
    assert str(SchemeConfig(kind="native")) == "native"
    assert SchemeConfig.model_validate(str(config)) == config
    assert SchemeConfig.model_validate(config.model_dump()) == config


def test_every_class_of_a_face_is_found_by_its_name():
    for base, name in (
        (ide.AbstractOperator, "Attention"),
        (ide.AbstractConstraint, "RMSNorm"),
        (ide.AbstractControl, "PiecewiseConstant"),
        (ide.AbstractPositions, "Rotary"),
        (solvers.AbstractScheme, "GatedRK2"),
        (tasks.AbstractTask, "FashionMNIST"),
    ):
        found = find("key", snake_case(name), base)
        assert found.__name__ == name
    assert find("key", "suzuki4", diffrax.AbstractSolver) is solvers.Suzuki4
    assert find("key", "dopri5", diffrax.AbstractSolver) is diffrax.Dopri5
    with pytest.raises(
        ide.InputError, match=r"Dopri5 is no AbstractSplitting.*Known: .*strang"
    ):
        find("key", "dopri5", solvers.AbstractSplitting)


def test_matrices_decay_and_vectors_do_not(tmp_path):
    model, _ = build(tmp_path, "model.bias=true")
    for theta in (model.control, ide.Tied(model.control(0.0), 2)):
        mark = decayed(theta)
        block = mark.blocks if isinstance(theta, ide.PiecewiseConstant) else mark.block
        assert block[0].query.weight and block[1].outer.weight
        assert not block[0].query.bias and not block[1].normalization.gain
    whole = decayed(model)
    assert (
        whole.inputs.embedding
        and whole.inputs.positions
        and not whole.read_out.normalization.gain
    )


def test_a_constraint_without_weights_on_a_smooth_control(tmp_path):
    model, _ = build(tmp_path, "control.kind=chebyshev", "model.constraint=nonnegative")
    solution = model.solve(jnp.arange(8))
    assert float(solution.stats["constraint_residual"]) == 0 and bool(solution.succeeded)
