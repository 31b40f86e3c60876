"""Texts that models write: with a cache and without, drawn, greedy, and by beam search."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first, programs_compiled
from models.examples import (
    CONTEXT,
    SPEECH,
    TOKENS,
    VOCABULARY,
    WIDTH,
    attention,
    feed_forward,
    filled,
    language_model,
    outputs_of,
    speech_to_text,
)

import ide_transformer as ide
from ide_transformer.models.generate import Draw, write


MODEL = filled(lambda: language_model(intervals=1))
SPOKEN = filled(speech_to_text)
# Tokens do not wrap around in the dtype of a prompt.
PROMPT, LENGTH = TOKENS[:, :2].astype(np.int8), 3
BEAMS = dict(beams=4, length_penalty=1.0)


def without_cache(model, prompt, ends, length, draw):
    return write(model, prompt, ends, length, draw, jax.random.key(4), cached=False)


# From the context to far beyond it; from beyond it; to its end, one further, from its end.
@pytest.mark.parametrize(
    "prompt, length", fast_first(1, [(3, 12), (12, 3), (3, 7), (3, 8), (10, 3)], heavy=1)
)
def test_texts_are_those_without_a_cache_also_beyond_the_context(prompt, length):
    tokens = jnp.concatenate([TOKENS, TOKENS], axis=-1)[:, :prompt]
    text = ide.generate(MODEL, tokens, length, key=jax.random.key(4), top_k=5)
    assert text.shape == (2, prompt + length)
    assert (text == without_cache(MODEL, tokens, prompt, length, Draw(1.0, top_k=5))).all()


def most_likely(model, prompt, length):
    """By hand, from the outputs for the whole context. Tokens behind a text do not matter."""
    tokens = [*map(int, prompt)]
    for _ in range(length):
        seen = tokens[-CONTEXT:]
        logits = outputs_of(model, np.array(seen + [0] * (CONTEXT - len(seen))))
        tokens.append(int(np.argmax(logits[len(seen) - 1])))
    return tokens


def rotary(key):
    return attention(key, causal=True, positions=ide.Rotary())


@pytest.mark.parametrize("cached", fast_first(2, [True, False]))
def test_ten_prompts_of_ten_lengths_are_two_programs(cached):
    """One for what fits into the context, whatever the lengths, and one for longer texts, also
    of prompts that are longer."""
    operators = (rotary, feed_forward)
    own = dict(learned_positions=False, own_velocity=not cached)
    solver = ide.LieTrotter() if cached else ide.Nesterov()
    model = filled(lambda: language_model(operators, intervals=1, own=own, solver=solver))
    assert (ide.why_not_cached(model) is None) == cached
    tokens = TOKENS.ravel()
    for prompts, lengths in ((range(1, 10), (1, 2)), (range(1, 17, 3), (12,))):
        given = [(tokens[:n], m) for n in prompts for m in lengths]
        with programs_compiled() as names:
            texts = [ide.generate(model, *x, temperature=0.0) for x in given]
        assert names[-1] == "jit(_written)" and names.count(names[-1]) == 1, names
        for text, x in zip(texts, given, strict=True):
            assert text.tolist() == most_likely(model, *x)


def test_prompts_of_different_lengths_also_beyond_the_context():
    lengths, length = jnp.array([4, 3]), 8
    tokens = jnp.asarray(TOKENS[:, :4])
    mask = jnp.arange(4)[None, :] < lengths[:, None]
    options = dict(key=jax.random.key(0), temperature=0.0)
    text = ide.generate(MODEL, ide.Text(tokens, mask), length, **options)
    for i, n in enumerate((4, 3)):
        alone = ide.generate(MODEL, tokens[i, :n], length, **options)
        assert text.tokens[i].tolist() == [*alone.tolist(), *[0] * (4 - n)]
        assert (text.mask[i] == (jnp.arange(4 + length) < n + length)).all()
    expected = without_cache(MODEL, tokens, lengths, length, Draw(0.0))
    assert (text.tokens == jnp.where(text.mask, expected, 0)).all()


def test_padding_stands_behind_a_prompt(unchecked):
    before = ide.Text(TOKENS, jnp.stack([jnp.arange(CONTEXT) > i for i in (1, -1)]))
    with pytest.raises(ide.InputError, match="padding stands behind"):
        ide.generate(MODEL, before, 2, key=jax.random.key(0))
    # What a compiled program is given cannot be refused.
    traced = eqx.filter_jit(lambda text: ide.generate(MODEL, text, 1, temperature=0.0))(before)
    assert (traced.tokens[0] == -1).all() and (traced.tokens[1] >= 0).all()


def test_tokens_are_drawn_with_the_probabilities_of_the_model(key):
    logits = np.asarray(outputs_of(MODEL, np.zeros(CONTEXT, int)))[0]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    prompt = jnp.zeros((4000, 1), int)
    samples = np.asarray(ide.generate(MODEL, prompt, 1, key=key))[:, 1]
    frequencies = np.bincount(samples, minlength=VOCABULARY) / len(samples)
    assert np.abs(frequencies - probabilities).max() < 0.04
    many = jnp.broadcast_to(jnp.asarray(logits), (4000, VOCABULARY))
    order = np.argsort(-logits)
    assert set(np.asarray(Draw(top_k=3)(many, key)).tolist()) == set(order[:3].tolist())
    # As few of the most likely tokens as have the probability together.
    before = np.cumsum(probabilities[order]) - probabilities[order]
    nucleus = set(order[before < 0.6].tolist())
    assert set(np.asarray(Draw(top_p=0.6)(many, key)).tolist()) == nucleus
    cold = np.bincount(Draw(0.5)(many, key), minlength=VOCABULARY) / 4000
    assert np.abs(cold - probabilities**2 / (probabilities**2).sum()).max() < 0.04
    random = jax.random.normal(key, (50, VOCABULARY), jnp.float32)
    for options in ({}, dict(top_p=0.5), dict(top_k=3)):
        assert (Draw(1e-39, **options)(random, key) == jnp.argmax(random, axis=-1)).all()


def test_tokens_do_not_wrap_around_in_the_dtype_of_the_prompt():
    options = dict(key=jax.random.key(0), readout_bias=True)
    sizes = (300, CONTEXT, WIDTH)
    model = filled(lambda: language_model((feed_forward,), sizes=sizes, own=options))
    bias = jnp.zeros(300).at[290].set(100.0)
    model = eqx.tree_at(lambda m: m.read_out.bias, model, bias)
    text = ide.generate(model, np.array([1, 2, 3], np.int8), 2, temperature=0.0)
    assert text.tolist() == [1, 2, 3, 290, 290]


def test_a_model_that_cannot_be_solved_writes_nothing():
    embedding = MODEL.inputs.embedding.at[5].set(jnp.nan)
    nan = eqx.tree_at(lambda m: m.inputs.embedding, MODEL, embedding)
    with pytest.raises(ide.InputError, match="position 3 could not be written"):
        ide.generate(nan, TOKENS[:, :3], 12, key=jax.random.key(4), top_k=5)
    nan = SPOKEN.inputs.embedding.at[5].set(jnp.nan)
    nan = eqx.tree_at(lambda m: m.inputs.text.embedding, SPOKEN, nan)
    for generate, options in ((ide.generate_greedy, {}), (ide.generate_beam, BEAMS)):
        with pytest.raises(ide.InputError, match="position 2 could not be written"):
            generate(nan, SPEECH, PROMPT, LENGTH, end=0, **options)
    # A token that is excluded is no failure.
    logits = jnp.zeros(VOCABULARY).at[5].set(-jnp.inf)
    assert Draw()(logits, jax.random.key(0)) != 5


@pytest.mark.heavy
def test_a_solve_that_fails_writes_nothing():
    # The state at which a solve stops is finite.
    controller = diffrax.PIDController(rtol=1e-9, atol=1e-9)
    failing = MODEL.with_solver(diffrax.Heun(), stepsize_controller=controller, max_steps=2)
    with pytest.raises(ide.InputError, match="position 3 could not be written"):
        ide.generate(failing, TOKENS[:, :3], 1, temperature=0.0)


@eqx.filter_jit
def encoded_by(source):
    return SPOKEN.inputs.encoded(source)[0]


def log_probabilities(texts):
    """Of the token after each text, for the first source; one program for all numbers."""
    padded = np.zeros((VOCABULARY, 2 + LENGTH), int)
    for row, text in zip(padded, texts, strict=False):
        row[: len(text)] = text
    source = np.broadcast_to(SPEECH[0], (VOCABULARY, *SPEECH.shape[1:]))
    logits = np.asarray(outputs_of(SPOKEN, ide.SourceAndText(source, padded)))
    last = logits[np.arange(len(texts)), [len(text) - 1 for text in texts]]
    return last - np.log(np.sum(np.exp(last), axis=-1, keepdims=True))


def by_hand(beams, end, penalty, length=LENGTH):
    """All continuations of each beam, sorted by Python; those that ended stay as they are."""
    found = [(0.0, tuple(PROMPT[0]))]
    for _ in range(length):
        grown = [x for x in found if end in x[1][2:]]
        going = [x for x in found if end not in x[1][2:]]
        rates = log_probabilities([x[1] for x in going])
        for (score, text), of_text in zip(going, rates, strict=True):
            grown += [(score + of_text[token], (*text, token)) for token in range(VOCABULARY)]
        found = sorted(grown, reverse=True)[:beams]
    best = max(found, key=lambda x: x[0] / (len(x[1]) - 2) ** penalty)[1]
    return [*map(int, best), *[end] * (2 + length - len(best))]


def test_beam_search_is_that_by_hand():
    likely = by_hand(1, VOCABULARY, 1.0)[3]  # a token that ends a text early
    for end in (likely, 0):
        text = ide.generate_beam(SPOKEN, SPEECH, PROMPT, LENGTH, end=end, **BEAMS)
        greedy = ide.generate_greedy(SPOKEN, SPEECH, PROMPT, LENGTH, end=end)
        assert text.shape == greedy.shape == (2, 2 + LENGTH)
        assert text.dtype == greedy.dtype == int
        assert text[0].tolist() == by_hand(BEAMS["beams"], end, BEAMS["length_penalty"])
        assert greedy[0].tolist() == by_hand(1, end, BEAMS["length_penalty"])


def test_many_beams_find_the_most_likely_text():
    """More beams than there are tokens: the best of all texts of two."""
    end = VOCABULARY - 1
    options = dict(end=end, beams=2 * VOCABULARY, length_penalty=0.0)
    source = ide.Encoded(encoded_by(SPEECH).states[0])
    text = ide.generate_beam(SPOKEN, source, PROMPT[0], 2, **options)
    firsts = log_probabilities([tuple(PROMPT[0])])[0]
    seconds = log_probabilities([(*PROMPT[0], token) for token in range(VOCABULARY)])
    # A text that has ended goes on with its end, at no cost.
    seconds[end] = np.where(np.arange(VOCABULARY) == end, 0.0, -np.inf)
    scores = firsts[:, None] + seconds
    assert text[2:].tolist() == [
        int(x) for x in np.unravel_index(scores.argmax(), scores.shape)
    ]


@pytest.mark.heavy
def test_one_beam_is_greedy_in_low_precision():
    model, random = filled(speech_to_text, std=1.0), np.random.default_rng(1)
    sources = random.standard_normal((256, *SPEECH.shape[1:]))
    prompts = random.integers(0, VOCABULARY, (256, 2))

    def written(generate, model, **options):
        return generate(model, sources, prompts, LENGTH, end=VOCABULARY - 1, **options)

    low = model.with_options(compute_dtype="bfloat16")
    texts = written(ide.generate_beam, low, beams=1)
    assert (texts == written(ide.generate_greedy, low)).all()
    assert (texts != written(ide.generate_greedy, model)).any()


def test_what_cannot_be_written(unchecked):
    bidirectional = filled(lambda: language_model((attention,)))
    with pytest.raises(ide.InputError, match=r"Attention, sees later .*\(…, causal=True\)"):
        ide.generate(bidirectional, TOKENS[0, :4], 2, temperature=0.0)
    with pytest.raises(ide.InputError, match=r"give key=jax\.random\.key\(0\)"):
        ide.generate(MODEL, jnp.zeros(1, int), 1)
    with pytest.raises(ide.InputError, match=r"read.out is TokenLogits"):
        ide.generate(MODEL.with_read_out(ide.States()), TOKENS, 1, temperature=0.0)
    for generate, given, message in (
        (ide.generate_greedy, dict(length=9), "choose a length from 0 to 8"),
        (ide.generate_beam, dict(end=VOCABULARY), "the last token is 10"),
        (ide.generate_beam, dict(prompt=PROMPT), r"axes \(2,\), .* source has \(\)"),
    ):
        options = dict(source=SPEECH[0], prompt=PROMPT[0], length=2, end=0) | given
        with pytest.raises(ide.InputError, match=message):
            generate(SPOKEN, **options)
