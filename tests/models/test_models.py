"""Models as equations that are solved by hand; with dropout, other schemes, horizons, exits."""

import dataclasses
import functools as ft

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest
from models.examples import (
    CONTEXT,
    MELS,
    PLACES,
    SPEECH,
    TOKENS,
    VOCABULARY,
    WIDTH,
    causal,
    embedded_by,
    feed_forward,
    filled,
    image_classifier,
    language_model,
    linear,
    normal,
    outputs_of,
    sequence_classifier,
    solution_of,
    solved_by_hand,
    speech_to_text,
)
from published.numpy_blocks import gelu, layer_norm

import ide_transformer as ide


MODEL = filled(language_model)
SPOKEN = filled(speech_to_text)
ENCODER, DECODER = SPOKEN.inputs.encoder, SPOKEN.with_inputs(SPOKEN.inputs.text)
INPUTS = ide.SourceAndText(SPEECH, TOKENS)


@eqx.filter_jit
def read_by(model, u):
    return model.outputs(u)


def test_a_language_model_is_an_equation_between_embedding_and_logits():
    options = dict(embedding_scale=3.0, input_normalization=ide.LayerNorm())
    options |= dict(tied=False, readout_bias=True)
    model = filled(lambda: language_model(own=options))
    inputs, read_out = model.inputs, model.read_out
    u0 = 3 * np.asarray(inputs.embedding)[TOKENS] + np.asarray(inputs.positions)
    u1 = solved_by_hand(model.equation, layer_norm(u0))
    logits = layer_norm(u1) @ np.asarray(read_out.weight).T + np.asarray(read_out.bias)
    assert largest(outputs_of(model, TOKENS), logits) < 1e-12


def test_texts_are_embedded_with_segments_a_lift_and_places_without_padding():
    """As ALBERT and RoBERTa do, whose token 2 is not counted."""
    table, places, kinds = normal(VOCABULARY, 4), normal(3 + 5, 4, seed=1), normal(2, 4, seed=2)
    inputs = ide.TextInputs(
        jax.device_put(table),
        5,
        positions=jax.device_put(places),
        segments=jax.device_put(kinds),
        prefix=(jax.device_put(np.ones(4)),),
        lift=filled(lambda: linear(4, 6)),
        normalization=ide.LayerNorm(),
        padding=2,
        scale=0.5,
    )
    tokens, segments = np.array([7, 2, 9, 5, 2]), np.array([0, 0, 1, 1, 1])
    mask = tokens != 2
    u0, domain, *_ = embedded_by(inputs, ide.Text(tokens, mask, segments))
    u = 0.5 * table[tokens] + places[[3, 2, 4, 5, 2]] + kinds[segments]
    u = layer_norm(np.concatenate([np.ones((1, 4)), u]))
    lift = inputs.lift
    assert largest(u0, u @ np.asarray(lift.weight) + np.asarray(lift.bias)) < 1e-13
    assert domain.weights.tolist() == [1, 1, 0, 1, 1, 0]
    assert inputs.domain.num_tokens == 6 and inputs.features == 6
    with pytest.raises(ide.InputError, match=r"7 rows, .* need 8"):
        dataclasses.replace(inputs, positions=places[1:])


def test_a_classifier_reads_the_mean_over_tokens():
    model = filled(sequence_classifier)
    u0 = np.asarray(model.inputs.embedding)[TOKENS] + np.asarray(model.inputs.positions)
    u1 = solved_by_hand(model.equation, u0)
    read = model.read_out.classifier
    logits = layer_norm(u1).mean(-2) @ np.asarray(read.weight) + np.asarray(read.bias)
    assert largest(outputs_of(model, TOKENS), logits) < 1e-12
    with pytest.raises(ide.InputError, match="build the model with class_token=True"):
        model(ide.Text(TOKENS, TOKENS >= 0))


def test_an_encoder_and_a_decoder_are_two_equations():
    """Each solved by a scheme of its own, the states of the first put into the second."""
    encoder = ENCODER.with_solver(diffrax.Heun(), steps_per_interval=4)
    model = ide.EncoderDecoder(encoder, DECODER)
    assert isinstance(model.solver, ide.LieTrotter) and not model.random

    @eqx.filter_jit
    def by_hand(encoder, decoder):
        v0, domain = encoder.embed(SPEECH)
        v1 = ide.solve(encoder.equation, v0, solver=encoder.solver, steps_per_interval=4).u1
        u0, text_domain = decoder.embed(TOKENS)
        control = ide.Sourced(decoder.control, encoder.outputs(v1), domain)
        equation = ide.Equation(control, decoder.constraint, text_domain)
        return ide.solve(equation, u0, solver=decoder.solver).u1

    solution = solution_of(model, INPUTS)
    assert largest(solution.u1, by_hand(encoder, DECODER)) < 1e-13
    assert solution.stats["field_evaluations"] == 2 * 4 * 2 + 2 and solution.succeeded
    failed = solution_of(model, ide.SourceAndText(SPEECH * np.nan, TOKENS))
    assert not failed.succeeded and failed.failed_at == 1


def convolved(convolution, u, stride):
    """By loops."""
    weight, bias = np.asarray(convolution.weight), np.asarray(convolution.bias)
    width, tokens = len(weight), u.shape[1]
    padded = np.pad(u, ((0, 0), (width // 2, width // 2), (0, 0)))
    places = range(0, tokens, stride)
    rows = [sum(padded[:, x + k] @ weight[k] for k in range(width)) for x in places]
    return np.stack(rows, axis=1) + bias


@pytest.mark.parametrize("stride, tokens", [(1, 7), (2, 6), (3, 7)])
def test_a_convolution_along_tokens_equals_loops(stride, tokens, key):
    convolution = filled(lambda: ide.TokenConvolution(3, 4, width=5, stride=stride, key=key))
    u = normal(2, tokens, 3)
    found, expected = eqx.filter_jit(convolution)(u), convolved(convolution, u, stride)
    assert found.shape == (2, -(-tokens // stride), 4) and largest(found, expected) < 1e-13


def test_the_state_of_speech_is_that_of_two_convolutions():
    inputs = ENCODER.inputs
    u = gelu(convolved(inputs.first_convolution, SPEECH.swapaxes(1, 2), 1))
    u = gelu(convolved(inputs.second_convolution, u, 2)) + np.asarray(inputs.positions)
    assert largest(embedded_by(ENCODER, SPEECH)[0], u) < 1e-12
    assert ENCODER.domain.num_tokens == PLACES


def test_dropout_of_the_embedding_needs_a_key():
    model = filled(lambda: language_model((feed_forward,), own=dict(dropout=0.5)))
    first, other, again = (embedded_by(model, TOKENS, jax.random.key(n))[0] for n in (8, 9, 8))
    assert (first == again).all() and (first != other).any()
    assert 0.3 < np.mean(np.asarray(first) == 0) < 0.7
    assert (embedded_by(model, TOKENS)[0] != 0).all()


@pytest.mark.heavy
def test_dropout_leaves_schemes_their_order():
    """The noise is drawn once per interval, so refining the steps converges."""
    options = dict(dropout=0.3, control=ide.PiecewiseLinear, intervals=1)
    model = filled(lambda: language_model((causal(),), **options))
    models = [model.with_solver(ide.RK4(), steps_per_interval=n) for n in (8, 16, 32)]
    outputs = [outputs_of(m, TOKENS, jax.random.key(8)) for m in models]
    ratio = largest(outputs[0], outputs[1]) / largest(outputs[1], outputs[2])
    assert abs(np.log2(ratio) - 4) < 0.5


def test_steps_for_each_sample_of_several_batch_axes():
    tokens = TOKENS[None]
    saveat = diffrax.SaveAt(t0=True, t1=True, fn=lambda t, u, _: {"u": u, "sum": u.sum()})
    each = MODEL.with_options(steps_for="sample")
    us = eqx.filter_jit(lambda model: model.solve(tokens, saveat=saveat).us)(each)
    assert us["u"].shape == (2, *tokens.shape, WIDTH)
    assert largest(us["sum"], us["u"].sum((-2, -1))) < 1e-12
    assert largest(us["u"][0, 0], embedded_by(MODEL, TOKENS)[0]) == 0
    assert largest(us["u"][1, 0], solution_of(MODEL, TOKENS).u1) < 1e-13


def test_a_longer_horizon_passes_through_the_old_end():
    """Against steps made by hand: half of the way of four steps is the state after two."""
    model = filled(lambda: language_model(control=ide.Tied))
    longer = model.on(ide.Mesh(horizon=4.0))
    assert longer.control.num_intervals == longer.constraint.num_intervals == 4
    assert longer.equation.horizon == 4.0
    u, domain = embedded_by(model, TOKENS)
    step = eqx.filter_jit(lambda operator, u: u + operator(u, domain))
    states = [u]
    for _ in range(4):
        states.append(ft.reduce(lambda u, operator: step(operator, u), model.control.block, u))
        u = states[-1]
    saveat = diffrax.SaveAt(ts=np.arange(5.0))
    found = eqx.filter_jit(lambda model: model.solve(TOKENS, saveat=saveat).us)(longer)
    assert largest(found, np.stack(states)) < 1e-12
    assert largest(solution_of(model, TOKENS).u1, states[2]) < 1e-12
    assert largest(outputs_of(longer, TOKENS), read_by(model, states[4])) < 1e-12
    finer = model.on(ide.Mesh(intervals=4)).on(ide.Mesh(horizon=1.0))
    assert (finer.control.num_intervals, finer.control.interval_length) == (2, 0.5)
    with pytest.raises(ide.InputError, match="PiecewiseConstant gives weights at depths"):
        MODEL.on(ide.Mesh(horizon=6.0))


def test_a_sample_stops_where_the_output_is_one_for_all_tokens():
    model = filled(lambda: image_classifier(class_token=False, control=ide.Tied, intervals=6))
    images = normal(6, 4, 6, 1)
    with pytest.raises(ide.InputError, match=r"not for each token.*stops='sample'"):
        model.with_exit(ide.EstimatedExit(0.01))(images)
    stopped = model.with_exit(ide.EstimatedExit(0.1, stops="sample"))
    evaluations = solution_of(stopped, images).stats["field_evaluations"]
    assert evaluations.shape == (6, model.domain.num_tokens)
    assert (evaluations == evaluations[:, :1]).all()
    assert len(np.unique(evaluations)) > 1


@pytest.mark.parametrize("velocity", [True, pytest.param(False, marks=pytest.mark.heavy)])
def test_an_ordinary_model_is_one_of_nodal_functions(velocity):
    """With a velocity of its own and a read-out of its own, or the embedding's."""
    solver = ide.Nesterov() if velocity else ide.LieTrotter()
    options = dict(own_velocity=velocity, tied=not velocity)
    options |= dict(output_normalization=ide.LayerNorm(jnp.linspace(0.5, 1.5, WIDTH)))
    model = filled(lambda: language_model(solver=solver, own=options))
    same = ide.functional(model)
    with pytest.raises(ide.InputError, match=f"take a multiple of {WIDTH} points"):
        same.on(ide.Mesh(width=WIDTH + 4))
    wide = same.on(ide.Mesh(width=3 * WIDTH))
    assert wide.features == 3 * WIDTH
    assert eqx.filter_eval_shape(wide.solve, TOKENS).u1.shape == (2, CONTEXT, 3 * WIDTH)
    assert largest(outputs_of(wide, TOKENS), outputs_of(model, TOKENS)) < 1e-12


def test_what_is_no_function_of_the_features():
    solver = ide.AttentionResidual(2, 2, WIDTH)
    model = ide.functional(filled(lambda: language_model(solver=solver)))
    assert model.ordinary.features == WIDTH
    with pytest.raises(ide.InputError, match=f"a weight for each of {WIDTH} features"):
        eqx.filter_eval_shape(model.on(ide.Mesh(width=2 * WIDTH)).embed, TOKENS)
    with pytest.raises(ide.InputError, match="ImageInputs is no function"):
        ide.functional(filled(image_classifier)).embed(np.ones((4, 6, 1)))


def test_tokens_that_a_model_does_not_know(unchecked):
    classifier = filled(sequence_classifier)
    with pytest.raises(ide.InputError, match=f"a token {VOCABULARY}, but the model knows 0"):
        eqx.filter_jit(lambda model: model(np.array([1, VOCABULARY])))(classifier)
    # What a compiled program is given cannot be refused.
    for given in (TOKENS + 1, TOKENS - 1):
        known = ((given >= 0) & (given < VOCABULARY)).all(-1)
        found = np.isfinite(outputs_of(classifier, jax.device_put(given))).all(-1)
        np.testing.assert_array_equal(found, known)


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (MODEL, np.zeros(CONTEXT + 1, int), f"longer than the context of {CONTEXT}"),
        (SPOKEN, tuple(INPUTS), r"inputs of tuple; give SourceAndText\("),
        (
            SPOKEN,
            ide.SourceAndText(SPEECH.swapaxes(1, 2), TOKENS),
            rf"built for \[\.\.\., {MELS}, {2 * PLACES}\]",
        ),
    ],
)
def test_inputs_that_do_not_fit(model, inputs, message, unchecked):
    with pytest.raises(ide.InputError, match=message):
        model(inputs)
