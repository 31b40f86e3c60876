"""Models as equations that are solved by hand; with dropout, other schemes, horizons, exits."""

import functools as ft
import itertools

import diffrax
import equinox as eqx
import jax
import numpy as np
import pytest
from helpers import largest
from models import examples as small
from models.examples import CONTEXT, TOKENS, WIDTH, normal, outputs_of
from published.numpy_blocks import layer_norm

import ide_transformer as ide


MODEL = small.language_model()
SPOKEN = small.speech_to_text()
ENCODER, DECODER = SPOKEN.inputs.encoder, SPOKEN.with_inputs(SPOKEN.inputs.text)


def test_a_language_model_is_an_equation_between_embedding_and_logits():
    options = dict(embedding_scale=3.0, input_normalization=ide.LayerNorm())
    options |= dict(tied=False, readout_bias=True)
    model = small.language_model(own=options)
    inputs, read_out = model.inputs, model.read_out
    u0 = 3 * np.asarray(inputs.embedding)[TOKENS] + np.asarray(inputs.positions)
    u1 = small.solved_by_hand(model.equation, layer_norm(u0))
    logits = layer_norm(u1) @ np.asarray(read_out.weight).T + np.asarray(read_out.bias)
    assert largest(outputs_of(model, TOKENS), logits) < 1e-12


def test_a_classifier_reads_the_mean_over_tokens():
    model = small.sequence_classifier()
    u0 = np.asarray(model.inputs.embedding)[TOKENS] + np.asarray(model.inputs.positions)
    u1 = small.solved_by_hand(model.equation, u0)
    read = model.read_out.classifier
    logits = layer_norm(u1).mean(-2) @ np.asarray(read.weight) + np.asarray(read.bias)
    assert largest(outputs_of(model, TOKENS), logits) < 1e-12
    with pytest.raises(ide.InputError, match="build the model with class_token=True"):
        model(ide.Text(TOKENS, TOKENS >= 0))
    with pytest.raises(ide.InputError, match=f"longer than the context of {CONTEXT}"):
        model(np.zeros(CONTEXT + 1, int))


def test_an_encoder_and_a_decoder_are_two_equations():
    """Each solved by a scheme of its own, the states of the first put into the second."""
    encoder = ENCODER.with_solver(diffrax.Heun(), steps_per_interval=4)
    model = ide.EncoderDecoder(encoder, DECODER)
    assert isinstance(model.solver, ide.LieTrotter) and not model.random

    @eqx.filter_jit
    def both_ways(speech):
        v0, domain = encoder.embed(speech)
        fine = dict(solver=encoder.solver, steps_per_interval=4, throw=False)
        v1 = ide.solve(encoder.equation, v0, **fine).u1
        u0, text_domain = DECODER.embed(TOKENS)
        control = ide.Sourced(DECODER.control, encoder.outputs(v1), domain)
        equation = ide.Equation(control, DECODER.constraint, text_domain)
        u1 = ide.solve(equation, u0, solver=DECODER.solver, throw=False).u1
        return u1, model.solve(ide.SourceAndText(speech, TOKENS))

    by_hand, solution = both_ways(small.SPEECH)
    assert largest(solution.u1, by_hand) < 1e-13
    assert solution.stats["field_evaluations"] == 2 * 4 * 2 + 2 and solution.succeeded
    _, failed = both_ways(small.SPEECH * np.nan)
    assert not failed.succeeded and failed.failed_at == 1


def test_dropout_of_the_embedding_needs_a_key():
    model = small.language_model((small.feed_forward,), own=dict(dropout=0.5))
    first, other, again = (
        small.embedded_by(model, TOKENS, jax.random.key(n))[0] for n in (8, 9, 8)
    )
    assert (first == again).all() and (first != other).any()
    assert 0.3 < np.mean(np.asarray(first) == 0) < 0.7
    assert (small.embedded_by(model, TOKENS)[0] != 0).all()


@pytest.mark.heavy
def test_dropout_leaves_schemes_their_order():
    """The noise is drawn once per interval, so refining the steps converges."""
    options = dict(dropout=0.3, control=ide.PiecewiseLinear, intervals=1)
    model = small.language_model((small.causal(),), **options)
    models = [model.with_solver(ide.RK4(), steps_per_interval=n) for n in (8, 16, 32)]
    outputs = [outputs_of(m, TOKENS, jax.random.key(8)) for m in models]
    ratio = largest(outputs[0], outputs[1]) / largest(outputs[1], outputs[2])
    assert abs(np.log2(ratio) - 4) < 0.5


def test_steps_for_each_sample_of_several_batch_axes():
    tokens = TOKENS[None]
    saveat = diffrax.SaveAt(t0=True, t1=True, fn=lambda t, u, _: {"u": u, "sum": u.sum()})
    each = MODEL.with_options(steps_for="sample")
    us = eqx.filter_jit(lambda model: model.solve(tokens, saveat=saveat).us)(each)
    assert largest(us["sum"], us["u"].sum((-2, -1))) < 1e-12
    assert largest(us["u"][0, 0], small.embedded_by(MODEL, TOKENS)[0]) == 0
    assert largest(us["u"][1, 0], small.solution_of(MODEL, TOKENS).u1) < 1e-13


def test_a_longer_horizon_passes_through_the_old_end():
    """Against steps made by hand: half of the way of four steps is the state after two."""
    model = small.language_model(control=ide.Tied)
    longer = model.on(ide.Mesh(horizon=4.0))
    assert longer.control.num_intervals == longer.constraint.num_intervals == 4
    assert longer.equation.horizon == 4.0
    u, domain = small.embedded_by(model, TOKENS)

    @eqx.filter_jit
    def step(u):
        return ft.reduce(lambda u, operator: u + operator(u, domain), model.control.block, u)

    states = [*itertools.accumulate(range(4), lambda u, _: step(u), initial=u)]
    saveat = diffrax.SaveAt(ts=np.arange(5.0))
    found = eqx.filter_jit(lambda model: model.solve(TOKENS, saveat=saveat).us)(longer)
    assert largest(found, np.stack(states)) < 1e-12
    assert largest(small.solution_of(model, TOKENS).u1, states[2]) < 1e-12
    outputs = eqx.filter_jit(model.outputs)(states[4])
    assert largest(outputs_of(longer, TOKENS), outputs) < 1e-12
    finer = model.on(ide.Mesh(intervals=4)).on(ide.Mesh(horizon=1.0))
    assert (finer.control.num_intervals, finer.control.interval_length) == (2, 0.5)
    with pytest.raises(ide.InputError, match="PiecewiseConstant gives weights at depths"):
        MODEL.on(ide.Mesh(horizon=6.0))


def test_a_sample_stops_where_the_output_is_one_for_all_tokens():
    model = small.image_classifier(class_token=False, control=ide.Tied, intervals=6)
    images = normal(6, 4, 6, 1)
    with pytest.raises(ide.InputError, match=r"not for each token.*stops='sample'"):
        model.with_exit(ide.EstimatedExit(0.01))(images)
    stopped = model.with_exit(ide.EstimatedExit(0.1, stops="sample"))
    evaluations = small.solution_of(stopped, images).stats["field_evaluations"]
    assert evaluations.shape == (6, model.domain.num_tokens)
    assert (evaluations == evaluations[:, :1]).all()
    assert len(np.unique(evaluations)) > 1


@pytest.mark.heavy
def test_an_ordinary_model_is_one_of_nodal_functions():
    """With a velocity and a read-out of its own."""
    norm = ide.LayerNorm(jax.device_put(np.linspace(0.5, 1.5, WIDTH)))
    options = dict(own_velocity=True, tied=False, output_normalization=norm)
    model = small.language_model(solver=ide.Nesterov(), own=options)
    same = ide.functional(model)
    with pytest.raises(ide.InputError, match=f"take a multiple of {WIDTH} points"):
        same.on(ide.Mesh(width=WIDTH + 4))
    wide = same.on(ide.Mesh(width=3 * WIDTH))
    assert wide.features == 3 * WIDTH
    assert eqx.filter_eval_shape(wide.solve, TOKENS).u1.shape == (2, CONTEXT, 3 * WIDTH)
    assert largest(outputs_of(wide, TOKENS), outputs_of(model, TOKENS)) < 1e-12


def test_tokens_that_a_model_does_not_know(unchecked):
    classifier = small.sequence_classifier()
    with pytest.raises(
        ide.InputError, match=f"a token {small.VOCABULARY}, but the model knows 0"
    ):
        eqx.filter_jit(lambda model: model(np.array([1, small.VOCABULARY])))(classifier)
    # What a compiled program is given cannot be refused.
    for given in (TOKENS + 1, TOKENS - 1):
        known = ((given >= 0) & (given < small.VOCABULARY)).all(-1)
        found = np.isfinite(outputs_of(classifier, jax.device_put(given))).all(-1)
        np.testing.assert_array_equal(found, known)
