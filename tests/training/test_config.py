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
    config = training.load_config(path, ["model.width=64", "data.path=a.txt"])
    assert (config.name, str(config.data.path)) == ("small", "a.txt")
    assert (config.model.depth, config.model.width) == (4, 64)
    assert refinements(config.training.refine) == "{0: 2, 150: 4}"
    written = "{0: {'intervals': 1, 'tokens': 8}, 5: 2, 0.75: 4}"
    config = training.load_config(path, [f"training.refine={written}"])
    assert refinements(config.training.refine) == written
    assert config.training.begins == (0, 5, 150)


def test_only_what_cannot_fit_is_refused(monkeypatch):
    """Known from shapes, before anything is made; a weight takes four times its memory."""
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
    st.sampled_from([None, True, False]),
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


@hypothesis.settings(max_examples=50, deadline=None, derandomize=True, database=None)
@hypothesis.given(_TREES)
def test_yaml_that_is_written_is_read_back(tree):
    text = write_yaml(tree)
    # Also by a reader of YAML 1.1.
    assert read_yaml(text, "here") == tree == yaml.safe_load(text)


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
