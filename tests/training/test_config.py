"""YAML as configurations read it, overrides, and the files of the repository."""

import equinox as eqx
import hypothesis
import jax
import pytest
import yaml
from helpers import ROOT
from hypothesis import strategies as st
from training import stub

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.training import sizes
from ide_transformer.training.choice import SchemeConfig
from ide_transformer.training.config import refinements
from ide_transformer.training.reading import read_yaml, write_yaml


FOLDERS = ("", "schemes/", "beds/", "reasoning/")
CONFIGS = [path for x in FOLDERS for path in sorted(ROOT.glob(f"configs/{x}*.yaml"))]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_say_how_they_are_run_and_are_read_back(path, tmp_path):
    config = training.load_config(path)
    assert config.name == path.stem
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"train.py {path.relative_to(ROOT)}" in line for line in head)
    dumped = training.dump_config(config)
    assert dumped.startswith("version: 1\n")
    (tmp_path / "dumped.yaml").write_text(dumped)
    assert training.load_config(tmp_path / "dumped.yaml") == config


def test_overrides_change_what_a_file_says(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("model: {depth: 4}\ntraining: {steps: 200, refine: {0: 2, 150: 4}}")
    overrides = ["solver.kind=strang", "model.width=64", "name=x", "data.path=a.txt"]
    config = training.load_config(path, overrides)
    assert (config.name, config.solver.kind, str(config.data.path)) == ("x", "strang", "a.txt")
    assert (config.model.depth, config.model.width) == (4, 64)
    assert refinements(config.training.refine) == "{0: 2, 150: 4}"
    assert training.load_config(path).name == "small"
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert training.load_config(tmp_path / "empty.yaml") == training.Config(name="empty")
    written = "{0: {'intervals': 1, 'tokens': 8}, 5: 2, 0.75: 4}"
    config = training.load_config(path, [f"training.refine={written}"])
    assert refinements(config.training.refine) == written
    assert config.training.begins == (0, 5, 150)
    with pytest.raises(ide.InputError, match="no such configuration file"):
        training.load_config(tmp_path / "none.yaml")


def test_nothing_is_converted_in_python_either():
    for section, key, value in (
        (training.ModelConfig, "width", "32"),
        (training.OptimizerConfig, "learning_rate", "1e-3"),
        (training.DataConfig, "path", 3),
    ):
        with pytest.raises(ValueError, match=key):
            section(**{key: value})
    assert training.OptimizerConfig(weight_decay=1).weight_decay == 1.0
    assert training.OptimizerConfig(schedule="constant", learning_rate=1e-5).lowest_rate < 1e-5


def test_only_what_cannot_fit_is_refused(monkeypatch):
    """Known from shapes, before anything is made; a weight takes four times its memory."""
    assert (sizes.memory() or 0) > 2**28
    config = stub.config("model.width=64")
    build = training.build_model_of_size
    model = eqx.filter_eval_shape(build, config, {"vocabulary": 5}, jax.random.key(0))

    def check(available):
        monkeypatch.setattr(sizes, "memory", lambda: available)
        sizes.check_memory(config, stub.Stub(4), model, ide.Recompute())

    weights = 8 * ((5 + 4) * 64 + 2 * (12 * 64**2 + 2 * 64) + 64)
    check(None)
    check(5 * weights)
    with pytest.raises(ide.InputError, match=r"model.width=64.*training.batch_size=4"):
        check(4 * weights)


_PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])),
    st.from_regex(r"[-+.0-9:_eExX]{1,6}", fullmatch=True),
    st.sampled_from(["yes", "no", "~", "null", "True", "1e3", "0o7", "2024-01-01", "<<", "="]),
)
_TREES = st.dictionaries(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
    st.recursive(_PLAIN, lambda x: st.lists(x, max_size=3), max_leaves=3),
    max_size=3,
)
_SOME = hypothesis.settings(max_examples=50, deadline=None, derandomize=True, database=None)


@_SOME
@hypothesis.given(_TREES)
def test_yaml_that_is_written_is_read_back(tree):
    text = write_yaml(tree)
    assert read_yaml(text, "here") == tree
    # Also by a reader of YAML 1.1, such as that of releases before.
    assert yaml.safe_load(text) == tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((x, None) for x in ("", "~", "null", "# nothing")),
        *(("true", True), ("False", False), ("yes", "yes"), ("on", "on")),
        *(("8", 8), ("-8", -8), ("1_000", 1000), ("010", "010"), ("0x10", "0x10")),
        *(("1e-3", 1e-3), ("1.0e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0)),
        *((".inf", float("inf")), ("-.Inf", -float("inf")), ("1:30", "1:30")),
        *(("'8'", "8"), ('"true"', "true"), ("2024-01-01", "2024-01-01"), ("'~'", "~")),
        *(("[1, [a]]", [1, ["a"]]), ("{a: {b: }}", {"a": {"b": None}})),
        ("a: |\n  8\nb: >\n  1\n", {"a": "8\n", "b": "1\n"}),
    ],
)
def test_plain_words_and_numbers(text, value):
    read = read_yaml(text, "here")
    assert read == value and type(read) is type(value)


_OUTER = st.sampled_from(["strang", "lie_trotter", "residual", "algebraically_reversible"])
_SCHEMES = st.recursive(
    st.sampled_from(["euler", "heun", "rk4", "leapfrog", "adams_bashforth(3)"]),
    lambda inner: st.builds("{}({})".format, _OUTER, inner),
    max_leaves=4,
)


@_SOME
@hypothesis.given(_SCHEMES)
def test_the_name_of_a_scheme_is_read_as_it_is_written(text):
    assert str(SchemeConfig(kind="native")) == "native"
    assert str(SchemeConfig(kind="strang")) == "strang(heun)"
    config = SchemeConfig.model_validate(text)
    assert str(config) == text
    assert SchemeConfig.model_validate(str(config)) == config
    assert SchemeConfig.model_validate(config.model_dump()) == config
