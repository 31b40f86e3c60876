"""Beam search against a search by hand, over the logits of the whole text."""

import itertools

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first
from models.test_encoder_decoder import (
    FEATURES,
    MODEL,
    TOKENS,
    VOCABULARY,
    encoded_by,
    logits_of,
)

import ide_transformer as ide


LENGTH, PROMPT = 3, TOKENS[:, :2]


def log_probabilities(texts):
    """Of the token after each text, for the first source; one program for all numbers."""
    padded = np.zeros((VOCABULARY, 2 + LENGTH), int)
    for row, text in zip(padded, texts, strict=False):
        row[: len(text)] = text
    source = np.broadcast_to(FEATURES[0], (VOCABULARY, *FEATURES.shape[1:]))
    logits = np.asarray(logits_of(MODEL, source, padded))
    last = logits[np.arange(len(texts)), [len(text) - 1 for text in texts]]
    return last - np.log(np.sum(np.exp(last), axis=-1, keepdims=True))


def by_hand(beams, end, penalty):
    """All continuations of each beam, sorted by Python; those that ended stay as they are."""
    found = [(0.0, tuple(PROMPT[0]))]
    for _ in range(LENGTH):
        grown = [x for x in found if end in x[1][2:]]
        going = [x for x in found if end not in x[1][2:]]
        for (score, text), rates in zip(
            going, log_probabilities([x[1] for x in going]), strict=True
        ):
            grown += [(score + rates[token], (*text, token)) for token in range(VOCABULARY)]
        found = sorted(grown, reverse=True)[:beams]
    best = max(found, key=lambda x: x[0] / (len(x[1]) - 2) ** penalty)[1]
    return [*map(int, best), *[end] * (2 + LENGTH - len(best))]


@pytest.mark.parametrize(
    ("beams", "penalty", "unlikely"), fast_first(1, [(4, 1.0, [0]), (1, 1.0, []), (4, 0.0, [])])
)
def test_it_is_the_search_by_hand(beams, penalty, unlikely):
    likely = by_hand(1, VOCABULARY, 1.0)[3]  # a token that ends a text early
    found = {}
    for end in (likely, *unlikely):
        text = ide.generate_beam(
            MODEL, FEATURES, PROMPT, LENGTH, end=end, beams=beams, length_penalty=penalty
        )
        found[end] = text
        assert text.shape == (2, 2 + LENGTH)
        assert text[0].tolist() == by_hand(beams, end, penalty)
    if beams == 1:
        greedy = ide.generate_greedy(MODEL, FEATURES, jnp.asarray(PROMPT), LENGTH, end=likely)
        assert (greedy == found[likely]).all()


@pytest.mark.heavy
def test_one_beam_is_greedy_in_low_precision():
    sources = np.random.default_rng(1).standard_normal((64, *FEATURES.shape[1:]))
    prompts = np.broadcast_to(PROMPT[0], (64, 2))

    def written(write, model, **options):
        return write(model, sources, prompts, LENGTH, end=VOCABULARY - 1, **options)

    low = MODEL.with_options(compute_dtype="bfloat16")
    texts = written(ide.generate_beam, low, beams=1)
    assert (texts == written(ide.generate_greedy, low)).all()
    assert (texts != written(ide.generate_greedy, MODEL)).any()


def test_tokens_do_not_wrap_around_in_the_dtype_of_the_prompt():
    prompt = PROMPT.astype(np.int8)
    for write in (ide.generate_beam, ide.generate_greedy):
        text = write(MODEL, FEATURES, prompt, LENGTH, end=0)
        assert text.dtype == int
        assert (text == write(MODEL, FEATURES, PROMPT, LENGTH, end=0)).all()


def test_a_model_that_cannot_be_solved_writes_nothing():
    nan = MODEL.inputs.embedding.at[5].set(jnp.nan)
    nan = eqx.tree_at(lambda m: m.inputs.text.embedding, MODEL, nan)
    for write in (ide.generate_beam, ide.generate_greedy):
        with pytest.raises(ide.InputError, match="position 2 could not be written"):
            write(nan, FEATURES, PROMPT, LENGTH, end=0)


def test_many_beams_find_the_most_likely_text():
    """More beams than there are tokens: the best of all texts of two."""
    end = VOCABULARY - 1
    encoded = encoded_by(MODEL, FEATURES)
    text = ide.generate_beam(
        MODEL,
        ide.Encoded(encoded.states[0]),
        PROMPT[0],
        2,
        end=end,
        beams=2 * VOCABULARY,
        length_penalty=0.0,
    )
    firsts = log_probabilities([tuple(PROMPT[0])])[0]
    best, best_score = None, -np.inf
    seconds = log_probabilities([(*PROMPT[0], token) for token in range(VOCABULARY)])
    for a, b in itertools.product(range(VOCABULARY), repeat=2):
        score = firsts[a] + (seconds[a, b] if a != end else (0 if b == end else -np.inf))
        if score > best_score:
            best, best_score = [a, b], score
    assert text[2:].tolist() == best


def test_options_that_do_not_fit(unchecked):
    for name, value in (("length", 6), ("end", VOCABULARY)):
        given = dict(prompt=PROMPT[0], length=2, end=0) | {name: value}
        with pytest.raises(ide.InputError, match=f"generate_beam: .*{name}={value}"):
            ide.generate_beam(MODEL, FEATURES[0], **given)
    with pytest.raises(ide.InputError, match=r"axes \(2,\), but the source has \(\)"):
        ide.generate_beam(MODEL, FEATURES[0], PROMPT, 2, end=0)
    adaptive = MODEL.with_solver(
        diffrax.Heun(), stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3)
    )
    with pytest.raises(ide.InputError, match="adaptive steps depend on the whole text"):
        ide.generate_beam(adaptive, FEATURES[0], PROMPT[0], 2, end=0)
