import equinox as eqx
import jax
import pytest
from helpers import ROOT

import ide_transformer as ide
from ide_transformer import training


FOLDERS = ("", "schemes/", "beds/", "reasoning/")
CONFIGS = [path for x in FOLDERS for path in sorted(ROOT.glob(f"configs/{x}*.yaml"))]


def write(tmp_path, text):
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_say_how_they_are_run_and_are_read_back(path, tmp_path):
    config = training.load_config(path)
    assert config.name == path.stem
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"train.py {path.relative_to(ROOT)}" in line for line in head)
    dumped = training.dump_config(config)
    assert dumped.startswith("version: 1\n")
    assert training.load_config(write(tmp_path, dumped)) == config


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
        (
            "modle: {}",
            [],
            r"unknown key modle. Did you mean model\?.*Known here: version, name",
        ),
        ("", ["model.depth=four"], r"override 'model.depth=four': model.depth='four'.*integer"),
        ("", ["model.depth"], "not an override; write section.key=value"),
        ("", ["modle.depth=8"], r"override 'modle.depth=8': unknown key modle. Did you mean"),
        ("", ["solver.rtol=1e-3"], r"override 'solver.rtol=1e-3': .* go together"),
        ("version: 2", [], r"version=2: this release .* reads version 1; train it again"),
        ("", ["training.steps=50"], "optimizer.warmup=100 needs more than"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path, text, overrides, message):
    with pytest.raises(ide.InputError, match=message):
        training.load_config(write(tmp_path, text), overrides)


def test_a_missing_configuration(tmp_path):
    with pytest.raises(ide.InputError, match="no such configuration file"):
        training.load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (training.ModelConfig, "width", "32"),
        (training.ModelConfig, "width", 32.0),
        (training.ModelConfig, "width", True),
        (training.ModelConfig, "bias", "yes"),
        (training.OptimizerConfig, "learning_rate", "1e-3"),
        (training.DataConfig, "path", 3),
        (training.TrainingConfig, "seed", 2**64),
    ],
)
def test_nothing_is_converted_in_python_either(section, key, value):
    with pytest.raises(ValueError, match=key):
        section(**{key: value})


def test_what_stands_for_a_number_or_a_path():
    assert training.OptimizerConfig(weight_decay=1).weight_decay == 1.0
    assert str(training.DataConfig(path="a.txt").path) == "a.txt"


def test_only_what_cannot_fit_is_refused(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("the quick brown fox. " * 40)
    path = write(tmp_path, "name: small\nmodel: {width: 8, depth: 1, context: 8}")
    config = training.load_config(path, [f"data={{name: text, path: {tmp_path}/text.txt}}"])
    task = training.build_task(config)

    def build(available):
        monkeypatch.setattr(training.sizes, "memory", lambda: available)
        return training.build_model(config, task, jax.random.key(0))

    weights = sum(x.nbytes for x in jax.tree.leaves(eqx.filter(build(None), eqx.is_array)))
    build(40 * weights)
    with pytest.raises(ide.InputError, match=r"model.width=8.*training.batch_size=12"):
        build(4 * weights)


def test_a_value_of_data_counts_where_it_is_written():
    """Also where other tasks have it as their default."""
    written = training.Config.model_validate({"data": {"name": "verses_en_es", "test": 0.0}})
    assert written.data.arguments("data", {}) == {"test": 0.0}
