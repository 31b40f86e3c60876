"""Rules of growth against layers copied by hand."""

import hashlib
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ide_transformer import InputError, training
from ide_transformer.contrib import MiddleRepeated, NewLayers, Stacked, text_of_packages
from ide_transformer.training.steps.growth import Refinement, grown_state
from tests.training import stub


# By rule: the layers, of 2 that become 6, that each layer copies.
COPIED = {
    Stacked(): [0, 1, 0, 1, 0, 1],
    MiddleRepeated(): [0, 0, 0, 0, 0, 1],
    MiddleRepeated(block=2): [0, 1, 0, 1, 0, 1],
    NewLayers(): [0, 1, None, None, None, None],
}


def language_model(layers, seed=0, **sections):
    sections |= {"model": {"layers": layers, "std": 0.5}, "data": {"name": "shakespeare"}}
    config = stub.config(**sections)
    return training.build_model_of_size(config, {"vocabulary": 7}, jax.random.key(seed))


def layer(model, number):
    return jax.tree.map(lambda x: x[number] if eqx.is_array(x) else x, model.control.blocks)


@pytest.mark.parametrize("rule", COPIED, ids=str)
def test_layers_are_copies_with_the_step_of_the_coarse_ones(rule):
    whole = language_model(6)
    coarse = rule.coarse(whole, 2)
    assert coarse.layers == 2 and coarse.control.horizon == 2.0
    fine = rule.grown(coarse, 6, lambda: language_model(6, seed=1))
    assert fine.layers == 6 and fine.control.horizon == 6.0
    for number, row in enumerate(COPIED[rule]):
        source = layer(language_model(6, seed=1), number) if row is None else layer(coarse, row)
        assert eqx.tree_equal(layer(fine, number), source)


def test_new_layers_with_outputs_of_zero_keep_the_function():
    coarse = NewLayers().coarse(language_model(4), 1)
    tokens = jnp.array([1, 4, 2, 6])
    drawn, zero = (
        NewLayers(outputs=x).grown(coarse, 4, lambda: language_model(4, seed=1))(tokens)
        for x in ("drawn", "zero")
    )
    np.testing.assert_allclose(zero, coarse(tokens), rtol=1e-5, atol=1e-6)
    assert abs(drawn - zero).max() > 0.01


def test_what_cannot_grow_is_refused():
    model = language_model(3)
    with pytest.raises(InputError, match="3 layers become a multiple of them, not 4"):
        Stacked().grown(model, 4, lambda: model)
    with pytest.raises(InputError, match="blocks of 2 layers do not divide 3 and 6"):
        MiddleRepeated(block=2).grown(model, 6, lambda: model)
    continuous = language_model(2, control="chebyshev")
    with pytest.raises(InputError, match=r"training\.growth=refinement"):
        Stacked().coarse(continuous, 1)


@pytest.mark.parametrize("keep", [True, False])
def test_moments_of_copies_are_copies_or_begin_again(keep):
    config = stub.config(optimizer={"schedule": "constant"}, data={"name": "shakespeare"})
    model = stub.model_of(config)
    rule = training.build_optimizer(config.optimizer, 10)
    state, static = training.initial_state(model, rule, jax.random.key(0))
    state = jax.tree.map(
        lambda x: jnp.ones_like(x) if eqx.is_inexact_array(x) else x + 3, state
    )
    grown = grown_state(
        state,
        growth=Stacked(),
        optimizer=rule,
        static=static,
        layers=4,
        draw=lambda: model,
        keep_moments=keep,
    )
    adam = grown.optimizer[1][0]
    for x in jax.tree.leaves((adam.mu, adam.nu)):
        np.testing.assert_array_equal(x, float(keep))
    assert int(adam.count) == 3 * keep
    # The schedule of the rate goes on.
    assert int(grown.optimizer[1][-1].count) == 3


def test_a_run_grows_by_a_rule_and_resumes(tmp_path):
    changes = [
        *("model.layers=4", "training.growth=new_layers", "optimizer.rise=2"),
        "training.schedule=[{until: 2, mesh: {layers: 1}}, {mesh: {layers: 4}}]",
    ]
    with stub.known():
        run = stub.train(tmp_path, *changes)
        first, _ = training.load_run(run.path, checkpoint=2)
        last, _ = training.load_run(run.path)
        assert (first.layers, first.control.horizon, last.layers) == (1, 1.0, 4)
        # It goes on from the coarse model to the same weights.
        (tmp_path / "again").mkdir()
        again, _ = training.load_run(stub.resumed(run, tmp_path / "again", after=2).path)
    assert eqx.tree_equal(last, again)


def test_the_rate_rises_again_when_layers_change():
    given = training.OptimizerConfig(learning_rate=1.0, schedule="constant", warmup=0, rise=3)
    rate = training.learning_rate(given, 20, [10])
    np.testing.assert_allclose(
        [rate(x) for x in (0, 9, 10, 11, 12, 13, 19)], [1, 1, 0.25, 0.5, 0.75, 1, 1]
    )


def test_a_text_of_packages_has_each_long_file_once(tmp_path, monkeypatch):
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    wheel = tmp_path / "one-1.0-py3-none-any.whl"
    files = {"b.py": "b" * 1500, "a.rst": "a" * 1500, "again.py": "a" * 1500}
    left_out = {"short.py": "c", "other.txt": "d" * 1500, "foreign.md": "é" * 1500}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (files | left_out).items():
            archive.writestr(name, text)
    packages = {"one==1.0": hashlib.sha256(wheel.read_bytes()).hexdigest()}
    kept = sorted({*files.values()}, key=lambda x: hashlib.sha256(x.encode()).hexdigest())
    assert text_of_packages(packages).read_text() == "\n".join(kept)
    with pytest.raises(InputError, match="its SHA-256 is"):
        text_of_packages({"one==1.0": "0"})
    with pytest.raises(InputError, match=r"give a version, as in sympy==1.14.0"):
        text_of_packages({"sympy": "0"})


def test_refinement_is_the_default_and_divides_the_step():
    rule = training.read(training.AbstractGrowth, "refinement", "training.growth")
    assert isinstance(rule, Refinement)
    fine = rule.grown(rule.coarse(language_model(4), 1), 4, lambda: language_model(4))
    assert fine.control.horizon == 4.0 and fine.control.interval_length == 1.0
