"""YAML as configurations read it, and overrides."""

import functools as ft

import equinox as eqx
import jax
import pytest
import yaml

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.training.configuration.text import read_yaml, write_yaml
from ide_transformer.training.steps import build
from tests.training import stub


def test_overrides_change_what_a_file_says(tmp_path):
    path = tmp_path / "small.yaml"
    schedule = "[{until: 150, mesh: {layers: 2}}, {mesh: {layers: 4}}]"
    path.write_text(f"model: {{layers: 4}}\ntraining: {{steps: 200, schedule: {schedule}}}")
    config = training.load_config(path, ["model.width=64", "data.name=text", "data.path=a.txt"])
    assert (config.name, str(config.data.path)) == ("small", "a.txt")
    assert (config.model.layers, config.model.width) == (4, 64)
    assert config.training.begins == (0, 150)
    written = "[{until: 5, mesh: {layers: 1, tokens: 8}}, {until: 75%, mesh: {layers: 2}}]"
    config = training.load_config(path, [f"training.schedule={written}"])
    assert config.training.begins == (0, 5, 150)
    meshes = [mesh for (mesh,) in training.scheduled_meshes(config)]
    assert [mesh.mesh for mesh in meshes] == [ide.Mesh(tokens=8), ide.Mesh(), ide.Mesh()]
    assert [mesh.layers for mesh in meshes] == [1, 2, 4]


def test_an_override_without_a_value_drops_a_key(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("model: {width: 8, options: {tied: false}}\ndata: {tokenizer: bpe}")
    dropped = ["data.tokenizer=", "model.options.tied=null", "model.layers="]
    config = training.load_config(path, dropped)
    assert config.data.tokenizer is None
    assert (config.model.options, config.model.width, config.model.layers) == ({}, 8, 4)


def test_a_section_may_be_written_as_a_name_and_an_override_completes_it(tmp_path):
    path = tmp_path / "small.yaml"
    costs = "{transport: {weight: 0.01, kind: null, options: {}}}"  # as older runs wrote it
    path.write_text(f"solver: rk4\ndata: p_hop\ntraining: {{costs: {costs}}}")
    config = training.load_config(path, ["solver.steps=2", "data.options.hops=1"])
    assert (config.solver.label, config.solver.steps) == ("rk4", 2)
    assert config.data.spec.tree == {"kind": "p_hop", "options": {"hops": 1}}
    assert config.training.costs == stub.config("training.costs.transport=0.01").training.costs


def test_only_what_cannot_fit_is_refused(monkeypatch):
    """Known from shapes, before anything is made; a weight takes four times its memory."""
    config = stub.config("model.width=64")
    key = jax.random.key(0)
    build_model = ft.partial(training.build_model_of_size, config, {"vocabulary": 5})
    model = eqx.filter_eval_shape(build_model, key)

    def check(available):
        monkeypatch.setenv("IDE_TRANSFORMER_MEMORY", str(available / 2**30))
        build.check_memory(config, stub.Stub(4), model)

    weights = 8 * ((5 + 4) * 64 + 2 * (12 * 64**2 + 2 * 64) + 64)
    check(5 * weights)
    with pytest.raises(ide.InputError, match=r"model.width=64.*training.batch_size=4"):
        check(4 * weights)


def test_plain_words_and_numbers():
    for text, value in (
        *(("~", None), ("# nothing", None), ("true", True), ("False", False), ("yes", "yes")),
        *(("-8", -8), ("1_000", 1000), ("010", "010"), ("0x10", "0x10"), ("1:30", "1:30")),
        *(("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-.Inf", -float("inf"))),
        *(("'8'", "8"), ('"true"', "true"), ("2024-01-01", "2024-01-01"), ("'~'", "~")),
        ("a: |\n  8\nb: >\n  1\n", {"a": "8\n", "b": "1\n"}),
    ):
        read = read_yaml(text, "here")
        assert read == value and type(read) is type(value)


WORDS = ["yes", "no", "~", "null", "True", "1e3", "0o7", "2024-01-01", "<<", "="]
WORDS += ["", " a", "ß", "# a"]
NUMBERS = [None, True, -(10**30), 0.1, 1e300, 5e-324, float("inf"), -float("inf")]


@pytest.mark.parametrize("value", [*WORDS, *NUMBERS], ids=repr)
def test_yaml_that_is_written_is_read_back(value):
    tree = {"key": value, str(value): [value, [{"key": value}]]}
    text = write_yaml(tree)
    # Also by a reader of YAML 1.1.
    assert read_yaml(text, "here") == tree == yaml.safe_load(text)
