"""Models compiled for a few lengths: their outputs are those of the model itself."""

import pytest
from helpers import fast_first, largest, programs_compiled
from models import examples as small
from models.examples import CONTEXT, TOKENS, outputs_of

import ide_transformer as ide


def check(compiled, inputs):
    found, expected = compiled(inputs), outputs_of(compiled.model, inputs)
    assert found.shape == expected.shape and largest(found, expected) < 1e-12


TEXT_CLASSIFIER = small.sequence_classifier(class_token=True)


# Padding is hidden by a mask, or as later tokens.
@pytest.mark.parametrize("model", fast_first(1, [TEXT_CLASSIFIER, small.language_model()]))
def test_ten_texts_of_ten_lengths_are_two_programs(model):
    compiled = ide.compiled(model, sizes=(5,))
    assert compiled.sizes == (5, CONTEXT) and compiled.why_not_padded is None
    with programs_compiled() as names:
        for number in range(1, CONTEXT + 1):
            compiled(TOKENS[:, :number])
    # The one for the first size has been compiled for the trial.
    assert names.count("jit(compiled_outputs)") <= 2
    check(compiled, TOKENS[:, :6])
    if model is TEXT_CLASSIFIER:
        check(compiled, ide.Text(TOKENS[:, :8], small.MASK[:, :8]))


@pytest.mark.heavy
def test_the_source_of_a_translation_gets_padding():
    compiled = ide.compiled(small.translation_model(), sizes=(5,))
    with programs_compiled() as names:
        for number in (7, 8, 9):
            source = ide.Text(TOKENS[:, :number], small.MASK[:, :number])
            compiled(ide.SourceAndText(source, TOKENS[:, : number - 6]))
    assert names.count("jit(compiled_outputs)") == 1
    check(compiled, ide.SourceAndText(source, TOKENS[:, :3]))


@pytest.mark.heavy
def test_padding_that_cannot_be_hidden():
    """The mean counts it."""
    mean = ide.compiled(small.sequence_classifier())
    assert "without a mask" in mean.why_not_padded and "each shape" in repr(mean)
    check(mean, TOKENS[:, :3])
