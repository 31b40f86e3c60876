"""Models compiled for a few lengths: their outputs are those of the model itself."""

import numpy as np
import pytest
from helpers import largest, programs_compiled
from models.examples import (
    CONTEXT,
    MASK,
    TOKENS,
    filled,
    image_classifier,
    language_model,
    outputs_of,
    sequence_classifier,
    translation_model,
)

import ide_transformer as ide


def check(compiled, inputs):
    found, expected = compiled(inputs), outputs_of(compiled.model, inputs)
    assert found.shape == expected.shape and largest(found, expected) < 1e-12
    assert np.std(expected) > 0.01


TEXT_CLASSIFIER = filled(lambda: sequence_classifier(class_token=True))


@pytest.mark.parametrize(
    "model", [filled(language_model), TEXT_CLASSIFIER], ids=["causal", "by a mask"]
)
def test_ten_texts_of_ten_lengths_are_two_programs(model):
    compiled = ide.compiled(model, sizes=(5,))
    assert compiled.sizes == (5, CONTEXT) and compiled.why_not_padded is None
    with programs_compiled() as names:
        found = [compiled(TOKENS[:, :n]) for n in range(1, CONTEXT + 1)]
    # The one for the first size has been compiled for the trial.
    assert names.count("jit(compiled_outputs)") <= 2
    if model is not TEXT_CLASSIFIER:
        assert [x.shape[1] for x in found] == [*range(1, CONTEXT + 1)]
    for number in (1, 6):
        check(compiled, TOKENS[:, :number])
    if model is TEXT_CLASSIFIER:
        check(compiled, ide.Text(TOKENS[:, :8], MASK[:, :8]))
    with pytest.raises(ide.InputError, match="longer than the context of 10"):
        compiled(np.zeros(11, int))


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
    assert "are no texts" in ide.compiled(filled(image_classifier)).why_not_padded
