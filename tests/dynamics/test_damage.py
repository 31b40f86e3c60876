"""The error of leaving out a layer, predicted and measured."""

import diffrax
import jax
import numpy as np
import pytest
from helpers import HEADS, WIDTH, make_block
from layered_models import CALIBRATION, HELD_OUT, mean_over_tokens, model_of

import ide_transformer as ide
from ide_transformer.dynamics import defects, removal_damage, removal_estimate
from ide_transformer.studies.depth import layer_columns, rank_layers


@pytest.mark.heavy
@pytest.mark.thorough
def test_the_estimate_ranks_layers_as_their_removal_does():
    model = model_of("post-norm", scales=(0.5, 1.2, 0.2, 0.8))
    columns = layer_columns(model, CALIBRATION)
    rows, correlations = rank_layers(columns, removal_damage(model, HELD_OUT))
    assert correlations["estimate"] >= 0.7
    assert [row["layer"] for row in rows] == [0, 1, 2, 3]


def test_the_estimate_is_exact_for_small_defects(read=mean_over_tokens):
    """The linearised march is the march, to first order in what is left out."""
    errors = []
    for size in (0.1, 0.01):
        model = model_of(scales=(1.0, size, 1.0, 1.0))
        estimate = removal_estimate(model, HELD_OUT, read)[1]
        errors.append(abs(estimate / removal_damage(model, HELD_OUT, read)[1] - 1))
    assert errors[1] < 0.2 * errors[0] < 0.02
    nothing = model_of(scales=(1.0, 0.0, 1.0, 1.0))
    estimate = np.asarray(removal_estimate(nothing, HELD_OUT, read))
    damage = removal_damage(nothing, HELD_OUT, read)
    assert estimate[1] == damage[1] == 0 < min(np.delete(estimate, 1))


@pytest.mark.heavy
def test_the_estimate_is_that_of_the_native_steps():
    """With one step in each interval the error would be two percent larger."""
    model = model_of(scales=(1.0, 0.001, 1.0, 1.0)).with_options(steps_per_interval=3)
    for native in (model, model.with_solver(diffrax.Heun(), steps_per_interval=1)):
        estimate = removal_estimate(native, HELD_OUT)[1]
        assert abs(estimate / removal_damage(native, HELD_OUT)[1] - 1) < 1e-3


@pytest.mark.parametrize("predicted", [removal_estimate, defects])
def test_steps_that_are_not_those_of_each_interval_alone_are_refused(predicted):
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    adaptive = model_of().with_solver(diffrax.Tsit5(), stepsize_controller=controller)
    with pytest.raises(ide.InputError, match="adaptive steps"):
        predicted(adaptive, HELD_OUT)
    with pytest.raises(ide.InputError, match="HeavyBall uses earlier steps"):
        predicted(model_of().with_solver(ide.HeavyBall()), HELD_OUT)


@pytest.mark.heavy
def test_layers_of_a_decoder_have_the_estimate_of_their_equation():
    """Also where its encoder is solved before."""
    texts = ide.TranslationModel(
        7,
        5,
        WIDTH,
        control=ide.PiecewiseConstant.build(decoding, 2, key=jax.random.key(0)),
        make_encoder_control=lambda: ide.Tied(make_block(jax.random.key(1), causal=False), 1),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        key=jax.random.key(2),
    )
    tokens = np.array([[1, 2, 3, 4, 0], [3, 3, 5, 6, 1]])
    inputs = ide.SourceAndText(tokens, tokens[:, :3])
    before = ide.SourceAndText(texts.inputs.encoded(tokens)[0], inputs.text)
    estimate = np.asarray(removal_estimate(texts, inputs))
    np.testing.assert_allclose(estimate, removal_estimate(texts, before), rtol=1e-10)
    damage = removal_damage(texts, inputs)
    assert (0.3 * damage < estimate).all() and (estimate < 3 * damage).all()


def decoding(key):
    first, second = jax.random.split(key)
    attention, feed_forward = make_block(first, std=0.05)
    cross = ide.CrossAttention(WIDTH, HEADS, key=second, std=0.05)
    return attention, cross, feed_forward
