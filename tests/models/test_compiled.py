"""Models compiled for a few lengths: their outputs are those of the model itself."""

import numpy as np
import pytest
from helpers import largest, programs_compiled
from models.examples import (
    CAUSAL,
    CONTEXT,
    MASK,
    TOKENS,
    attention,
    feed_forward,
    filled,
    image_classifier,
    language_model,
    normal,
    outputs_of,
    sequence_classifier,
    translation_model,
)

import ide_transformer as ide


def check(compiled, inputs):
    found, expected = compiled(inputs), outputs_of(compiled.model, inputs)
    assert found.shape == expected.shape and largest(found, expected) < 1e-12
    assert np.std(expected) > 0.01


@pytest.mark.parametrize("operators", [CAUSAL, (attention,)])
def test_ten_texts_of_ten_lengths_are_two_programs(operators):
    """Also where a mask hides the padding, in the last one."""
    compiled = ide.compiled(filled(lambda: language_model(operators)), sizes=(5,))
    assert compiled.sizes == (5, CONTEXT) and compiled.why_not_padded is None
    with programs_compiled() as names:
        found = [compiled(TOKENS[:, :n]) for n in range(1, CONTEXT + 1)]
    # The one for the first size has been compiled for the trial.
    assert names.count("jit(compiled_outputs)") <= 2
    assert [x.shape[1] for x in found] == [*range(1, CONTEXT + 1)]
    for number in (1, 5, 6):
        check(compiled, TOKENS[:, :number])


def test_a_text_with_a_mask_and_outputs_without_tokens():
    compiled = ide.compiled(filled(lambda: sequence_classifier(class_token=True)), sizes=(6,))
    assert compiled.why_not_padded is None
    check(compiled, TOKENS[:, :3])
    check(compiled, ide.Text(TOKENS[:, :8], MASK[:, :8]))


@pytest.mark.heavy
def test_the_source_of_a_translation_gets_padding():
    compiled = ide.compiled(filled(translation_model), sizes=(5,))
    with programs_compiled() as names:
        for number in (7, 8, 9):
            source = ide.Text(TOKENS[:, :number], MASK[:, :number])
            compiled(ide.SourceAndText(source, TOKENS[:, : number - 6]))
    assert names.count("jit(compiled_outputs)") == 1
    check(compiled, ide.SourceAndText(source, TOKENS[:, :3]))


def test_padding_that_cannot_be_hidden():
    """The mean counts it; a picture has none."""
    mean = ide.compiled(filled(sequence_classifier))
    assert "without a mask" in mean.why_not_padded and "each shape" in repr(mean)
    check(mean, TOKENS[:, :3])
    image = ide.compiled(filled(image_classifier))
    assert "are no texts" in image.why_not_padded
    check(image, normal(2, 4, 6, 1))


def test_a_text_that_is_too_long():
    compiled = ide.compiled(filled(lambda: language_model((feed_forward,))))
    with pytest.raises(ide.InputError, match="longer than the context of 10"):
        compiled(np.zeros(11, int))
