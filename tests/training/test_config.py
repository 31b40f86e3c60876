import diffrax
import equinox as eqx
import jax
import pytest
from helpers import ROOT

import ide_transformer as ide
from ide_transformer import tasks, training


CONFIGS = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("configs/schemes/*.yaml")])


def write(tmp_path, text):
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_say_how_they_are_run_and_what_came_out(path):
    config = training.load_config(path)
    assert config.name == path.stem
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"train.py {path.relative_to(ROOT)}" in line for line in head)


def test_a_dumped_config_is_read_back(tmp_path):
    for path in CONFIGS:
        config = training.load_config(path)
        assert training.load_config(write(tmp_path, training.dump_config(config))) == config


def test_overrides(tmp_path):
    path = write(tmp_path, "model: {depth: 3}")
    config = training.load_config(path, ["solver.kind=strang", "model.width=64", "name=x"])
    assert (config.name, config.solver.kind) == ("x", "strang")
    assert (config.model.depth, config.model.width) == (3, 64)
    assert training.load_config(path).name == "small"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("model: {dept: 3}", [], r"small.yaml: unknown key model.dept. Did you mean depth\?"),
        ("modle: {}", [], r"unknown key modle. Did you mean model\?.*Known here: name, data"),
        ("", ["model.depth=four"], r"override 'model.depth=four': model.depth='four'.*integer"),
        ("model: {depth: '4'}", ["training.steps=-1"], "training.steps=-1"),
        ("", ["model.width=130"], "model.heads=4 does not divide model.width=130"),
        ("", ["model.depth"], "not an override; write section.key=value"),
        ("", ["name.x=1"], "name is a value, not a section"),
        ("", ["data.name=text"], "reads from data.path"),
        ("", ["data.path=a.txt"], "data.name=shakespeare comes with its own data"),
        ("", ["data.name=digits"], "needs model.kind=image_classifier"),
        ("", ["solver.rtol=1e-3"], "solver.rtol and solver.atol go together"),
        ("", ["training.steps=50"], "optimizer.warmup=100 must be less"),
        ("", ["optimizer.learning_rate=.nan"], "optimizer.learning_rate=nan"),
        ("name: ../evil", [], "name='../evil'"),
        ("model: [1, 2]", [], "model="),
        ("- a\n- b", [], "expected sections"),
        ("a: [", [], "not valid YAML"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path, text, overrides, message):
    if "name:" not in text and text != "a: [" and not text.startswith("-"):
        text = f"name: small\n{text}"
    with pytest.raises(ide.InputError, match=message):
        training.load_config(write(tmp_path, text), overrides)


def test_a_missing_configuration(tmp_path):
    with pytest.raises(ide.InputError, match="no such configuration file"):
        training.load_config(tmp_path / "none.yaml")


def small(tmp_path, *overrides):
    tiny = ["model.width=16", "model.depth=2", "model.context=8", "data.name=text"]
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    config = training.load_config(write(tmp_path, ""), [*tiny, f"data.path={text}", *overrides])
    task = training.build_task(config)
    return training.build_model(config, task, jax.random.key(0)), task


@pytest.mark.parametrize(
    ("overrides", "solver"),
    [
        ([], ide.LieTrotter(diffrax.Euler())),
        (["solver.kind=strang"], ide.Strang(diffrax.Heun())),
        (["solver.kind=strang", "solver.sub_solver=euler"], ide.Strang(diffrax.Euler())),
        (["solver.kind=rk4"], ide.RK4()),
        (["solver.kind=tsit5"], diffrax.Tsit5()),
        (
            ["model.constraint=layer_norm", "model.normalization=none"],
            ide.LieTrotter(ide.Projected(diffrax.Euler())),
        ),
        (["model.constraint=sphere", "solver.kind=heun"], ide.Projected(diffrax.Heun())),
    ],
)
def test_schemes_by_name(tmp_path, overrides, solver):
    model, task = small(tmp_path, *overrides)
    assert eqx.tree_equal(model.solver, solver)
    assert jax.numpy.isfinite(model(task.batch(0, 2, 0).inputs)).all()


@pytest.mark.parametrize(
    "overrides",
    [
        ["control.kind=piecewise_linear"],
        ["control.kind=tied", "model.constraint=rms_norm", "model.normalization=none"],
        ["model.activation=swiglu", "model.positions=rotary", "model.tied=false"],
        ["model.key_value_heads=2", "model.normalization=rms_norm", "model.bias=true"],
        ["model.operators=[feed_forward, attention]", "model.dropout=0.1"],
        ["solver.kind=bosh3", "solver.rtol=1e-2", "solver.atol=1e-2"],
        ["data.tokenizer=bpe", "data.vocabulary=300"],
    ],
)
def test_options_of_the_model(tmp_path, overrides):
    model, task = small(tmp_path, *overrides)
    batch = task.batch(0, 2, 0)
    loss = tasks.cross_entropy(model, batch, jax.random.key(1)).loss
    assert abs(float(loss) - jax.numpy.log(task.tokenizer.vocabulary)) < 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "solver.kind=strng",
            r"solver.kind=strng: unknown. Did you mean strang\?.*lie_trotter",
        ),
        ("control.kind=spline", "control.kind=spline: unknown.*piecewise_linear, tied"),
        ("solver.sub_solver=eulr", r"Did you mean euler\?"),
    ],
)
def test_unknown_names(tmp_path, override, message):
    with pytest.raises(ide.InputError, match=message):
        small(tmp_path, override)


def test_an_unsplit_scheme_has_no_sub_solver(tmp_path):
    with pytest.raises(ide.InputError, match="heun has no scheme inside it"):
        small(tmp_path, "solver.kind=heun", "solver.sub_solver=euler")


def test_matrices_decay_and_vectors_do_not(tmp_path):
    model, _ = small(tmp_path, "model.bias=true")
    for theta in (model.control, ide.Tied(model.control(0.0), 2)):
        mark = training.decayed(theta)
        block = mark.blocks if isinstance(theta, ide.PiecewiseConstant) else mark.block
        assert block[0].query.weight and block[1].outer.weight
        assert not block[0].query.bias and not block[1].normalization.gain
    whole = training.decayed(model)
    assert whole.embedding and whole.positions and not whole.output_normalization.gain
