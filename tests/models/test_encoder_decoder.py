"""Models of two equations: speech to text."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH, largest

import ide_transformer as ide


MELS, PLACES, VOCABULARY, CONTEXT = 5, 6, 11, 9
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


def speech_to_text(rate=0.0):
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


MODEL = speech_to_text()
FEATURES = jax.random.normal(jax.random.key(5), (2, 3, MELS, FRAMES))
TOKENS = jax.random.randint(jax.random.key(6), (2, 3, 7), 0, VOCABULARY)
INPUTS = ide.SourceAndText(FEATURES, TOKENS)


logits_of = eqx.filter_jit(lambda model, *inputs: model(ide.SourceAndText(*inputs)))


@pytest.mark.parametrize("stride, tokens", [(1, 7), (2, 7), (2, 6), (3, 8)])
def test_a_convolution_equals_loops(stride, tokens, key):
    convolution = ide.TokenConvolution(3, 4, width=5, stride=stride, std=1.0, key=key)
    convolution = eqx.tree_at(lambda x: x.bias, convolution, jnp.arange(4.0))
    u = jax.random.normal(key, (2, tokens, 3))
    padded = np.pad(u, ((0, 0), (2, 2), (0, 0)))
    expected = [
        sum(padded[:, x + k] @ np.asarray(convolution.weight[k]) for k in range(5))
        for x in range(0, tokens, stride)
    ]
    expected = np.stack(expected, axis=1) + np.arange(4.0)
    assert convolution(u).shape == expected.shape == (2, -(-tokens // stride), 4)
    assert largest(convolution(u), expected) < 1e-13
    assert largest(convolution(u[0]), expected[0]) < 1e-13


@pytest.mark.parametrize("steps_for", ["batch", "sample"])
def test_on_one_sample_and_on_batches(steps_for):
    model = MODEL.with_solver(ide.LieTrotter(), steps_for=steps_for)
    logits = logits_of(model, *INPUTS)
    assert logits.shape == (2, 3, 7, VOCABULARY)
    alone = logits_of(MODEL, FEATURES[1, 2], TOKENS[1, 2])
    assert largest(logits[1, 2], alone) < 1e-12
    encoded = model.encoded(INPUTS)
    assert largest(logits_of(model, encoded, TOKENS), logits) < 1e-13


def test_it_is_two_equations():
    """Each solved by hand, the states of the first put into the second."""
    encoder, decoder = MODEL.encoder, MODEL.decoder
    v0, domain = encoder.embed(FEATURES)
    states = encoder.read_out(ide.solve(encoder.equation, v0, solver=encoder.solver).u1)
    u0, of_text = decoder.embed(TOKENS)
    control = ide.Sourced(decoder.control, states, domain)
    equation = ide.Equation(control, decoder.constraint, of_text)
    u1 = ide.solve(equation, u0, solver=decoder.solver).u1
    assert largest(logits_of(MODEL, *INPUTS), decoder.read_out(u1)) < 1e-13


def test_the_text_is_causal_and_sees_all_of_the_source():
    logits = logits_of(MODEL, *INPUTS)
    changed = logits_of(MODEL, FEATURES, TOKENS.at[..., 4].add(1) % VOCABULARY)
    assert largest(changed[..., :4, :], logits[..., :4, :]) < 1e-14
    assert largest(changed[..., 4:, :], logits[..., 4:, :]) > 1e-3
    for frame in range(FRAMES):
        other = logits_of(MODEL, FEATURES.at[..., frame].add(1), TOKENS)
        assert (jnp.max(jnp.abs(other - logits), axis=(0, 1, 3)) > 1e-6).all()


def test_both_equations_are_solved_as_one_wants():
    other = MODEL.with_solver(diffrax.Heun(), steps_per_interval=4)
    assert isinstance(other.decoder.solver, diffrax.Heun)
    assert isinstance(other.encoder.solver, ide.LieTrotter)
    assert other.solve(INPUTS).stats["field_evaluations"] == 3 * 4 * 2
    encoder = MODEL.encoder.with_solver(diffrax.Heun(), steps_per_interval=4)
    third = MODEL.with_encoder(encoder)
    assert isinstance(third.solver, ide.LieTrotter)
    assert third.encoder.solve(FEATURES).stats["field_evaluations"] == 2 * 4 * 2
    assert largest(third.encoded(INPUTS).states, encoder(FEATURES)) < 1e-14
    outputs = [logits_of(model, *INPUTS) for model in (MODEL, other, third)]
    assert min(largest(outputs[0], outputs[i]) for i in (1, 2)) > 1e-4


def test_padding_of_an_encoder_is_seen_by_no_token():
    """An encoder of texts hands its mask on."""
    control = ide.PiecewiseConstant.build(
        lambda k: block(k, False, 0.0), 2, key=jax.random.key(3)
    )
    embedding = jax.random.normal(jax.random.key(4), (VOCABULARY, WIDTH))
    encoder = ide.TextEncoder(
        embedding,
        control=control,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        context=8,
    )
    model = MODEL.with_encoder(encoder)
    source = jnp.arange(14).reshape(2, 7) % VOCABULARY
    mask = jnp.arange(7)[None, :] < jnp.array([[7], [4]])
    tokens = TOKENS[0, :2]
    logits = logits_of(model, ide.Text(source, mask), tokens)
    short = logits_of(model, source[1, :4], tokens[1])
    assert largest(logits[1], short) < 1e-13
    assert largest(logits[1], logits_of(model, source[1], tokens[1])) > 1e-3
    by_sample = model.with_solver(ide.LieTrotter(), steps_for="sample")
    encoded = by_sample.encoded(ide.SourceAndText(ide.Text(source, mask), tokens))
    assert largest(logits_of(by_sample, encoded, tokens), logits) < 1e-13


def test_gradients_reach_both_equations_but_not_the_fixed_positions():
    gradient = eqx.filter_grad(lambda model: jnp.sum(jnp.sin(model(INPUTS))))(MODEL)
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    still = [jax.tree_util.keystr(path) for path, x in leaves if not x.any()]
    assert still == [".encoder.positions"]
    assert all(jnp.isfinite(x).all() for _, x in leaves)


def test_dropout_needs_a_key_and_is_in_both():
    model, key = speech_to_text(rate=0.5), jax.random.key(8)
    assert (logits_of(model, *INPUTS) == logits_of(model, *INPUTS)).all()
    assert (model(INPUTS, key=key) == model(INPUTS, key=key)).all()
    assert largest(model(INPUTS, key=key), logits_of(model, *INPUTS)) > 1e-2
    states = model.encoded(INPUTS, key=key).states
    assert largest(states, model.encoded(INPUTS).states) > 1e-2
    given = ide.SourceAndText(model.encoded(INPUTS), TOKENS)
    assert largest(model(given, key=key), model(INPUTS, key=key)) > 1e-3


def test_generate_greedy_is_a_loop_over_the_logits():
    features, prompt, length = FEATURES[0], TOKENS[0, :, :2], 4
    endless = prompt
    for _ in range(length):
        best = jnp.argmax(logits_of(MODEL, features, endless)[:, -1], axis=-1)
        endless = jnp.concatenate([endless, best[:, None]], axis=1)
    earlier = []
    for end in range(VOCABULARY):
        expected = np.array(endless)
        for text in expected:
            (there,) = np.nonzero(text[2:] == end)
            text[2 + there.min(initial=length) :] = end
        texts = ide.generate_greedy(MODEL, features, prompt, length, end=end)
        assert texts.tolist() == expected.tolist()
        earlier.append((expected != np.array(endless)).any())
    assert any(earlier), "a text ends before its length"
    encoded = MODEL.encoded(ide.SourceAndText(features, prompt))
    assert (ide.generate_greedy(MODEL, encoded, prompt, length, end=end) == texts).all()
    alone = ide.generate_greedy(MODEL, features[1], prompt[1], length, end=end)
    assert (alone == texts[1]).all()


def test_inputs_that_do_not_fit(unchecked):
    features, tokens = FEATURES[0, 0], TOKENS[0, 0]
    for wrong in (features[:-1], features[:, :-1], features.T):
        with pytest.raises(ide.InputError, match=r"built for \[\.\.\., 5, 12\]: 5 mels, 12 fr"):
            MODEL(ide.SourceAndText(wrong, tokens))
    with pytest.raises(ide.InputError, match="a token 11, but the model knows 0 to 10"):
        MODEL(ide.SourceAndText(features, tokens.at[0].set(VOCABULARY)))
    with pytest.raises(ide.InputError, match="10 tokens is longer than the context of 9"):
        MODEL(ide.SourceAndText(features, jnp.zeros(10, int)))
    with pytest.raises(ide.InputError, match=r"source has shape \(6, 16\).*need \(3, 6, 16\)"):
        MODEL(ide.SourceAndText(features, TOKENS[0]))
    with pytest.raises(ide.InputError, match="no states of a second domain"):
        MODEL.decoder(tokens)
    with pytest.raises(ide.InputError, match="width=4"):
        ide.TokenConvolution(3, 3, width=4, key=jax.random.key(0))


def test_greedy_options_that_do_not_fit(unchecked):
    features, prompt = FEATURES[0, 0], TOKENS[0, 0, :2]
    with pytest.raises(ide.InputError, match="prompt is empty"):
        ide.generate_greedy(MODEL, features, prompt[:0], 2, end=0)
    for length in (8, -1):
        with pytest.raises(ide.InputError, match="choose a length from 0 to 7"):
            ide.generate_greedy(MODEL, features, prompt, length, end=0)
    with pytest.raises(ide.InputError, match="end=11"):
        ide.generate_greedy(MODEL, features, prompt, 2, end=11)
    with pytest.raises(ide.InputError, match="a token 12"):
        ide.generate_greedy(MODEL, features, prompt + 12, 2, end=0)
