"""Models of two equations: speech to text."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH, largest

import ide_transformer as ide


MELS, PLACES, VOCABULARY, CONTEXT = 5, 4, 11, 7
LENGTH = 6
FRAMES = 2 * PLACES


def block(key, cross, rate):
    keys = jax.random.split(key, 3)
    options = dict(normalization=ide.LayerNorm(), std=0.3)
    operators = [
        ide.Attention(WIDTH, HEADS, causal=cross, key=keys[0], **options),
        ide.FeedForward(WIDTH, 2 * WIDTH, key=keys[1], **options),
    ]
    if cross:
        operators.insert(1, ide.CrossAttention(WIDTH, HEADS, key=keys[2], **options))
    return tuple(ide.Dropout(operator, rate) for operator in operators)


@eqx.filter_jit
def speech_to_text(rate):
    keys = jax.random.split(jax.random.key(1), 6)
    parts = dict(constraint=ide.Free(), discretization=ide.Discretization(ide.LieTrotter()))
    encoder = ide.SpeechEncoder(
        ide.TokenConvolution(MELS, WIDTH, std=0.5, key=keys[0]),
        ide.TokenConvolution(WIDTH, WIDTH, stride=2, std=0.5, key=keys[1]),
        jax.random.normal(keys[2], (PLACES, WIDTH)),
        control=ide.PiecewiseConstant.build(lambda k: block(k, False, rate), 2, key=keys[3]),
        **parts,
    )
    decoder = ide.LanguageModel(
        VOCABULARY,
        CONTEXT,
        WIDTH,
        control=ide.PiecewiseConstant.build(lambda k: block(k, True, rate), 3, key=keys[4]),
        std=0.5,
        key=keys[5],
        **parts,
    )
    return ide.EncoderDecoder(encoder, decoder)


RANDOM = np.random.default_rng(5)
MODEL = speech_to_text(0.0)
ENCODER, DECODER = MODEL.inputs.encoder, MODEL.with_inputs(MODEL.inputs.text)
FEATURES = RANDOM.standard_normal((2, MELS, FRAMES))
TOKENS = RANDOM.integers(0, VOCABULARY, (2, LENGTH))
INPUTS = ide.SourceAndText(FEATURES, TOKENS)


@eqx.filter_jit
def logits_of(model, source, text, key=None):
    return model(ide.SourceAndText(source, text), key=key)


@eqx.filter_jit
def encoded_by(model, source):
    return model.inputs.encoded(source)[0]


@pytest.fixture(scope="module")
def logits():
    return np.asarray(logits_of(MODEL, *INPUTS))


@pytest.fixture(scope="module")
def encoded():
    return encoded_by(MODEL, FEATURES)


@pytest.mark.parametrize("stride, tokens", [(1, 7), (2, 6), (3, 7)])
def test_a_convolution_equals_loops(stride, tokens, key):
    convolution = ide.TokenConvolution(3, 4, width=5, stride=stride, std=1.0, key=key)
    convolution = eqx.tree_at(lambda x: x.bias, convolution, jnp.arange(4.0))
    u = RANDOM.standard_normal((2, tokens, 3))
    padded = np.pad(u, ((0, 0), (2, 2), (0, 0)))
    weight = np.asarray(convolution.weight)
    expected = [
        sum(padded[:, x + k] @ weight[k] for k in range(5)) for x in range(0, tokens, stride)
    ]
    expected = np.stack(expected, axis=1) + np.arange(4.0)
    convolved = eqx.filter_jit(convolution)(jnp.asarray(u))
    assert convolved.shape == expected.shape == (2, -(-tokens // stride), 4)
    assert largest(convolved, expected) < 1e-13


def test_on_one_sample_and_on_batches(logits, encoded):
    assert logits.shape == (2, LENGTH, VOCABULARY)
    alone = logits_of(MODEL, FEATURES[1], TOKENS[1])
    assert largest(logits[1], alone) < 1e-12
    assert largest(logits_of(MODEL, encoded, TOKENS), logits) < 1e-13


def test_it_is_two_equations(logits):
    """Each solved by hand, the states of the first put into the second."""

    @eqx.filter_jit
    def by_hand(encoder, decoder):
        v0, domain = encoder.embed(FEATURES)
        states = encoder.outputs(ide.solve(encoder.equation, v0, solver=encoder.solver).u1)
        u0, text_domain = decoder.embed(TOKENS)
        control = ide.Sourced(decoder.control, states, domain)
        equation = ide.Equation(control, decoder.constraint, text_domain)
        return decoder.outputs(ide.solve(equation, u0, solver=decoder.solver).u1)

    assert largest(logits, by_hand(ENCODER, DECODER)) < 1e-13


def test_the_text_is_causal_and_sees_all_of_the_source(logits):
    tokens = TOKENS.copy()
    tokens[..., 3] = (tokens[..., 3] + 1) % VOCABULARY
    changed = logits_of(MODEL, FEATURES, tokens)
    assert largest(changed[..., :3, :], logits[..., :3, :]) < 1e-14
    assert largest(changed[..., 3:, :], logits[..., 3:, :]) > 1e-3
    for frame in range(FRAMES):
        features = FEATURES.copy()
        features[..., frame] += 1
        other = logits_of(MODEL, features, TOKENS)
        assert (np.max(np.abs(other - logits), axis=(0, 2)) > 1e-6).all()


def test_each_equation_has_a_solver_of_its_own(logits):
    @eqx.filter_jit
    def solved(model, inputs):
        solution = model.solve(inputs)
        return model.outputs(solution.u1), solution

    encoder = ENCODER.with_solver(diffrax.Heun(), steps_per_interval=4)
    other = ide.EncoderDecoder(encoder, DECODER)
    assert isinstance(other.solver, ide.LieTrotter)
    states, first = solved(encoder, FEATURES)
    assert first.stats["field_evaluations"] == 2 * 4 * 2
    given = logits_of(MODEL, ide.Encoded(states), TOKENS)
    found, both = solved(other, INPUTS)
    assert largest(found, given) < 1e-13
    assert largest(given, logits) > 1e-4
    assert both.stats["field_evaluations"] == 2 * 4 * 2 + 3 and both.succeeded
    _, failed = solved(other, ide.SourceAndText(FEATURES * np.nan, TOKENS))
    assert not failed.succeeded and failed.failed_at == 1


@pytest.fixture(scope="module")
def text_to_text():
    encoder = ide.TextEncoder(
        jnp.asarray(RANDOM.standard_normal((VOCABULARY, WIDTH))),
        control=ENCODER.control,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        context=8,
    )
    return ide.EncoderDecoder(encoder, DECODER)


SOURCE = np.arange(14).reshape(2, 7) % VOCABULARY
MASK = np.arange(7)[None, :] < np.array([[7], [4]])


def test_padding_of_an_encoder_is_seen_by_no_token(text_to_text):
    """An encoder of texts gives its mask to the decoder."""
    logits = logits_of(text_to_text, ide.Text(SOURCE, MASK), TOKENS)
    short = logits_of(text_to_text, SOURCE[1, :4], TOKENS[1])
    assert largest(logits[1], short) < 1e-13
    unpadded = logits_of(text_to_text, ide.Text(SOURCE, MASK | True), TOKENS)
    assert largest(logits[1], unpadded[1]) > 1e-3


@pytest.mark.heavy
def test_steps_for_each_sample_of_several_batch_axes(text_to_text):
    by_sample = text_to_text.with_solver(ide.LieTrotter(), steps_for="sample")
    expected = logits_of(text_to_text, ide.Text(SOURCE, MASK), TOKENS)
    inputs = ide.Text(SOURCE[None], MASK[None]), TOKENS[None]
    assert largest(logits_of(by_sample, *inputs)[0], expected) < 1e-13


def test_values_of_a_solution_with_steps_for_each_sample():
    by_sample = DECODER.with_options(steps_for="sample")
    control = ide.PiecewiseConstant(by_sample.control.blocks[::2])
    by_sample = eqx.tree_at(lambda m: m.control, by_sample, control)
    tokens = TOKENS[None]
    saveat = diffrax.SaveAt(t0=True, t1=True, fn=lambda t, u, _: {"u": u, "sum": u.sum()})
    us = by_sample.solve(tokens, saveat=saveat).us
    assert us["u"].shape == (2, *tokens.shape, WIDTH)
    assert largest(us["sum"], us["u"].sum((-2, -1))) < 1e-12
    embedded, _ = by_sample.embed(tokens)
    assert largest(us["u"][0], embedded) == 0


def test_it_is_random_where_one_of_both_is():
    model = MODEL
    for part in (lambda m: m.control, lambda m: m.inputs.encoder.control):
        assert model.random
        without_dropout = tuple(operator.operator for operator in part(model).blocks)
        model = eqx.tree_at(part, model, ide.PiecewiseConstant(without_dropout))
    assert not model.random


def test_gradients_reach_both_equations_but_not_the_fixed_positions():
    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(model):
        return jnp.sum(jnp.sin(model(INPUTS)))

    leaves = jax.tree_util.tree_leaves_with_path(gradient(MODEL))
    still = [jax.tree_util.keystr(path) for path, x in leaves if not np.any(x)]
    assert still == [".inputs.encoder.inputs.positions"]
    assert all(np.isfinite(x).all() for _, x in leaves)


@pytest.mark.heavy
def test_dropout_is_in_both(logits, encoded):
    model, key = speech_to_text(0.5), jax.random.key(8)
    in_decoder = logits_of(model, encoded, TOKENS, key)
    assert largest(in_decoder, logits) > 1e-2
    assert largest(in_decoder, logits_of(model, *INPUTS, key)) > 1e-3


def test_generate_greedy_is_a_loop_over_the_logits(encoded):
    prompt, length = jnp.asarray(TOKENS[:, :2]), LENGTH - 2
    text = np.zeros((2, LENGTH), int)
    text[:, :2] = prompt
    for place in range(2, LENGTH):
        # The text is causal: what follows the place before does not matter.
        logits = logits_of(MODEL, FEATURES, text)
        text[:, place] = np.argmax(logits[:, place - 1], axis=-1)
    early, never = text[0, 3], min(set(range(VOCABULARY)) - set(text.ravel()))
    for end, source in ((early, FEATURES), (never, encoded)):
        expected = text.copy()
        for row in expected:
            (there,) = np.nonzero(row[2:] == end)
            row[2 + there.min(initial=length) :] = end
        texts = ide.generate_greedy(MODEL, source, prompt, length, end=int(end))
        assert texts.tolist() == expected.tolist()
        assert (expected != text).any() == (end == early)


def test_inputs_that_do_not_fit(unchecked):
    features, tokens = FEATURES[0], TOKENS[0]
    for wrong in (features[:-1], features[:, :-1], features.T):
        with pytest.raises(ide.InputError, match=r"built for \[\.\.\., 5, 8\]: 5 mels, 8 fr"):
            MODEL(ide.SourceAndText(wrong, tokens))
    with pytest.raises(ide.InputError, match=r"inputs of tuple; give SourceAndText\("):
        MODEL((features, tokens))
    encoded = ide.Encoded(jnp.zeros((PLACES, WIDTH)))
    with pytest.raises(ide.InputError, match="a token 11, but the model knows 0 to 10"):
        MODEL(ide.SourceAndText(encoded, np.array([VOCABULARY, 1])))
    with pytest.raises(ide.InputError, match="8 tokens is longer than the context of 7"):
        MODEL(ide.SourceAndText(encoded, np.zeros(8, int)))
    with pytest.raises(ide.InputError, match=r"source has shape \(4, 16\).*need \(2, 4, 16\)"):
        MODEL(ide.SourceAndText(encoded, TOKENS))
    with pytest.raises(ide.InputError, match="no states of a second domain"):
        DECODER(tokens)
    with pytest.raises(ide.InputError, match="width=4 has no middle"):
        ide.TokenConvolution(3, 3, width=4, key=jax.random.key(0))


def test_greedy_options_that_do_not_fit(unchecked):
    features, prompt = FEATURES[0], jnp.asarray(TOKENS[0, :2])
    with pytest.raises(ide.InputError, match="choose a length from 0 to 5"):
        ide.generate_greedy(MODEL, features, prompt, 6, end=0)
    with pytest.raises(ide.InputError, match="a token 12"):
        ide.generate_greedy(MODEL, features, jnp.array([1, 12]), 2, end=0)
    exit = ide.EstimatedExit(0.5, stops="sample")
    with pytest.raises(ide.InputError, match="later tokens; give stops='token'"):
        ide.generate_greedy(MODEL.with_exit(exit), features, prompt, 2, end=0)
