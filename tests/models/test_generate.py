"""Texts that models write: with a cache and without, drawn and greedy, and of speech."""

import equinox as eqx
import jax
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib
from ide_transformer.models.generate import Draw
from tests.helpers import fast_first, programs_compiled
from tests.models import examples as small
from tests.models.examples import CONTEXT, TOKENS, outputs_of


# Of one operator, which compiles in less time.
BLOCK = (small.causal(),)
MODEL = small.language_model(BLOCK, intervals=1)
UNCACHED = small.language_model(
    BLOCK, intervals=1, velocity=True, solver=ide.contrib.Nesterov()
)
# Prompts of integers in which the numbers of all tokens may not fit.
PROMPT = TOKENS[:, :2].astype(np.int8)
UNEVEN = ide.Text(TOKENS[:, :4].astype(np.int8), np.arange(4) < np.array([[4], [3]]))
GREEDY = dict(temperature=0.0)


def most_likely(model, prompt, length):
    """By hand, from the outputs for the whole context. Tokens behind a text do not matter."""
    tokens = [*map(int, prompt)]
    for _ in range(length):
        window = tokens[-CONTEXT:]
        logits = outputs_of(model, np.array(window + [0] * (CONTEXT - len(window))))
        tokens.append(int(np.argmax(logits[len(window) - 1])))
    return tokens


def test_prompts_that_fit_into_the_context_are_one_program():
    with programs_compiled() as names:
        texts = [ide.generate(MODEL, TOKENS[:, :n], 2, **GREEDY) for n in (1, 8)]
    assert names.count("jit(_fill_buffers)") <= 1, names
    for text, n in zip(texts, (1, 8), strict=True):
        assert text[1].tolist() == most_likely(MODEL, TOKENS[1, :n], 2)


@pytest.mark.parametrize("model", fast_first(1, [MODEL, UNCACHED]))
def test_prompts_of_different_lengths_also_beyond_the_context(model, unchecked):
    assert (ide.models.why_not_cached(model) is None) == (model is MODEL)
    length = 8
    text = ide.generate(model, UNEVEN, length, **GREEDY)
    for i, n in enumerate((4, 3)):
        expected = [*most_likely(model, TOKENS[i, :n], length), *[0] * (4 - n)]
        assert text.tokens[i].tolist() == expected
        assert (text.mask[i] == (np.arange(4 + length) < n + length)).all()


def test_padding_stands_behind_a_prompt(unchecked):
    before = ide.Text(TOKENS, jax.device_put(np.arange(CONTEXT) > np.array([[1], [-1]])))
    with pytest.raises(ide.InputError, match="mask"):
        ide.generate(MODEL, before, 2, **GREEDY)
    with pytest.raises(ide.InputError, match=r"key=jax\.random"):
        ide.generate(MODEL, TOKENS, 2)


def test_tokens_are_drawn_with_the_probabilities_of_the_model(key):
    logits = np.asarray(outputs_of(MODEL, np.zeros(CONTEXT, int)))[0]
    many, random = np.tile(logits, (4000, 1)), np.random.default_rng(0).normal(size=(50, 11))

    @eqx.filter_jit
    def drawn(logits, *draws):
        return [draw(logits, key) for draw in draws]

    def frequencies(tokens):
        return np.bincount(tokens, minlength=small.VOCABULARY) / len(tokens)

    probabilities = np.exp(logits) / np.exp(logits).sum()
    samples = ide.generate(MODEL, np.zeros((4000, 1), int), 1, key=key)[:, 1]
    assert np.abs(frequencies(samples) - probabilities).max() < 0.04
    top, nucleus, cold = map(np.asarray, drawn(many, Draw(top_k=3), Draw(top_p=0.6), Draw(0.5)))
    order = np.argsort(-logits)
    assert {*top} == {*order[:3]}
    # As few of the most likely tokens as have the probability together.
    before = np.cumsum(probabilities[order]) - probabilities[order]
    assert {*nucleus} == {*order[before < 0.6]}
    squared = probabilities**2 / (probabilities**2).sum()
    assert np.abs(frequencies(cold) - squared).max() < 0.04
    # A token that is excluded is no failure, and the least temperature no division by zero.
    random[:, 5] = -np.inf
    (coldest,) = drawn(random.astype(np.float32), Draw(1e-39, top_k=3))
    assert (coldest == random.argmax(axis=-1)).all()


def without_token(embedding_of, model):
    embedding = np.array(embedding_of(model))
    embedding[5] = np.nan
    return eqx.tree_at(embedding_of, model, jax.device_put(embedding))


SPOKEN, LENGTH = small.speech_to_text(intervals=1), 3


@eqx.filter_jit
def encoded_by(source):
    return SPOKEN.inputs.encoded(source)[0]


def test_a_model_that_cannot_be_solved_writes_nothing():
    nan = without_token(lambda m: m.inputs.embedding, MODEL)
    with pytest.raises(ide.InputError, match="position 3"):
        ide.generate(nan, UNEVEN, 8, **GREEDY)
    nan = without_token(lambda m: m.inputs.text.embedding, SPOKEN)
    with pytest.raises(ide.InputError, match="position 2"):
        contrib.generate_greedy(nan, encoded_by(small.SPEECH), PROMPT, LENGTH, end=0)


def test_nothing_is_drawn_behind_the_end_of_a_text():
    free = np.asarray(ide.generate(MODEL, PROMPT, 6, **GREEDY))
    end = int(free[0, 4])
    expected = free.copy()
    for row in expected:
        places = np.flatnonzero(row[2:] == end)
        row[2 + places[0] if len(places) else len(row) :] = end
    assert np.array_equal(ide.generate(MODEL, PROMPT, 6, end=end, **GREEDY), expected)


def test_greedy_texts_of_speech_are_those_by_hand_up_to_their_end():
    by_hand = PROMPT
    for _ in range(LENGTH):
        padded = np.pad(by_hand, ((0, 0), (0, 2 + LENGTH - by_hand.shape[1])))
        logits = np.asarray(outputs_of(SPOKEN, contrib.SourceAndText(small.SPEECH, padded)))
        likely = logits[:, by_hand.shape[1] - 1].argmax(axis=-1)
        by_hand = np.column_stack((by_hand, likely))
    end = int(by_hand[0, 3])  # ends the first text before its last token
    text = contrib.generate_greedy(SPOKEN, encoded_by(small.SPEECH), PROMPT, LENGTH, end=end)
    for tokens, expected in zip(text.tolist(), by_hand.tolist(), strict=True):
        if end in expected[2:]:
            stop = expected.index(end, 2)
            expected[stop:] = [end] * (2 + LENGTH - stop)
        assert tokens == expected
