"""Greedy texts of an encoder and a decoder, by hand."""

import equinox as eqx
import jax
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib
from tests.models import examples as small
from tests.models.examples import TOKENS, outputs_of


SPOKEN = small.speech_to_text(intervals=1)
# Prompts of integers in which the numbers of all tokens may not fit.
PROMPT, LENGTH = TOKENS[:, :2].astype(np.int8), 3


@eqx.filter_jit
def encoded_by(source):
    return SPOKEN.inputs.encoded(source)[0]


def test_greedy_texts_are_those_by_hand_up_to_their_end():
    by_hand = PROMPT
    for _ in range(LENGTH):
        padded = np.pad(by_hand, ((0, 0), (0, 2 + LENGTH - by_hand.shape[1])))
        logits = np.asarray(outputs_of(SPOKEN, ide.contrib.SourceAndText(small.SPEECH, padded)))
        likely = logits[:, by_hand.shape[1] - 1].argmax(axis=-1)
        by_hand = np.column_stack((by_hand, likely))
    end = int(by_hand[0, 3])  # ends the first text before its last token
    text = contrib.generate_greedy(SPOKEN, encoded_by(small.SPEECH), PROMPT, LENGTH, end=end)
    for tokens, expected in zip(text.tolist(), by_hand.tolist(), strict=True):
        if end in expected[2:]:
            stop = expected.index(end, 2)
            expected[stop:] = [end] * (2 + LENGTH - stop)
        assert tokens == expected


def test_a_decoder_that_cannot_be_solved_writes_nothing():
    embedding = np.array(SPOKEN.inputs.text.embedding)
    embedding[5] = np.nan
    nan = eqx.tree_at(lambda m: m.inputs.text.embedding, SPOKEN, jax.device_put(embedding))
    with pytest.raises(ide.InputError, match="position 2"):
        contrib.generate_greedy(nan, encoded_by(small.SPEECH), PROMPT, LENGTH, end=0)
