"""Growth against layers copied by hand."""

import hashlib
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ide_transformer import InputError, training
from ide_transformer.contrib import Stacked
from ide_transformer.training.steps.growth import grow_state
from package_texts import write_text
from tests.training import stub


def language_model(layers, **sections):
    sections |= {"model": {"layers": layers, "operators": ["feed_forward"]}}
    sections |= {"data": {"name": "shakespeare"}}
    return stub.model_of(stub.config(**sections), vocabulary=7)


def layer(model, index):
    return jax.tree.map(lambda x: x[index] if eqx.is_array(x) else x, model.control.blocks)


def test_layers_are_copies_with_the_step_of_the_coarse_ones():
    coarse = Stacked().coarse(language_model(6), 2)
    assert coarse.layers == 2 and coarse.control.horizon == 2.0
    fine = Stacked().grown(coarse, 6)
    assert fine.layers == 6 and fine.control.horizon == 6.0
    for index in range(6):
        assert eqx.tree_equal(layer(fine, index), layer(coarse, index % 2))


def test_what_cannot_grow_is_refused():
    model = language_model(3)
    with pytest.raises(InputError, match=r"4 layers.* 3"):
        Stacked().grown(model, 4)
    continuous = language_model(2, control="chebyshev")
    with pytest.raises(InputError, match=r"training\.growth=refinement"):
        Stacked().coarse(continuous, 1)


def test_moments_of_copies_are_copies():
    config = stub.config(optimizer={"schedule": "constant"}, data={"name": "shakespeare"})
    model = stub.model_of(config)
    rule = training.build_optimizer(config.optimizer, 10)
    state, static = training.initial_state(model, rule, jax.random.key(0))
    moved = lambda x: jnp.ones_like(x) if eqx.is_inexact_array(x) else x + 3  # noqa: E731
    state = jax.tree.map(moved, state)
    grown = grow_state(state, growth=Stacked(), static=static, layers=4)
    adam = grown.optimizer[1][0]
    for x in jax.tree.leaves((adam.mu, adam.nu)):
        np.testing.assert_array_equal(x, 1.0)
    assert int(adam.count) == 3
    # The schedule of the rate goes on.
    assert int(grown.optimizer[1][-1].count) == 3


@pytest.mark.heavy
def test_a_run_grows_by_a_rule(tmp_path):
    changes = ["model.layers=4", "model.operators=[damping]", "training.growth=stacked"]
    changes += ["training.schedule=[{until: 2, mesh: {layers: 1}}, {mesh: {layers: 4}}]"]
    with stub.known():
        run = stub.train(tmp_path, *changes)
        first, _ = training.load_run(run.path, checkpoint=2)
        last, _ = training.load_run(run.path)
        assert (first.layers, first.control.horizon, last.layers) == (1, 1.0, 4)


def test_a_text_of_packages_has_each_long_file_once(tmp_path, monkeypatch):
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    wheel = tmp_path / "one-1.0-py3-none-any.whl"
    files = {"b.py": "b" * 1500, "a.rst": "a" * 1500, "again.py": "a" * 1500}
    left_out = {"short.py": "c", "other.txt": "d" * 1500, "foreign.md": "é" * 1500}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (files | left_out).items():
            archive.writestr(name, text)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    long_texts = sorted({*files.values()}, key=lambda x: hashlib.sha256(x.encode()).hexdigest())
    text = tmp_path / "packages.txt"
    write_text(text, {"one": ("1.0", sha256)})
    assert text.read_text() == "\n".join(long_texts)
    with pytest.raises(InputError, match="SHA-256"):
        write_text(text, {"one": ("1.0", "0")})
