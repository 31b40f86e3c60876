"""Recipes of models that read a text as a whole, and of what they write."""

import ide_transformer as ide

from .small import CONTEXT, KEY, SEEING_ALL, TOKENS_OF_TEXT, VOCABULARY, WIDTH, Recipe, block
from .small_models import SOUND, listener, model_parts


def _layer(key):
    attention, feed_forward = block(key)
    return attention, ide.CrossAttention(WIDTH, 2, key=key), feed_forward


_SIZES = dict(vocabulary=VOCABULARY, context=CONTEXT, features=WIDTH)
_NORMALIZATIONS = dict(
    learned_positions=True,
    input_normalization=ide.Free(),
    output_normalization=ide.Free(),
    dropout=0.1,
    std=0.1,
)

TEXTS = {
    "SequenceClassifier": Recipe(
        ide.SequenceClassifier,
        dict(
            **_SIZES, classes=3, **model_parts(SEEING_ALL), **_NORMALIZATIONS, class_token=True
        ),
        lambda model: model(TOKENS_OF_TEXT),
    ),
    "TranslationModel": Recipe(
        ide.TranslationModel,
        dict(
            **_SIZES,
            **model_parts(ide.PiecewiseConstant.build(_layer, 2, key=KEY)),
            **_NORMALIZATIONS,
            tied=True,
            make_encoder_control=lambda: SEEING_ALL,
        ),
        lambda model: model(ide.SourceAndText(TOKENS_OF_TEXT, TOKENS_OF_TEXT)),
    ),
    "generate_beam": Recipe(
        ide.generate_beam,
        dict(
            model=listener(),
            source=SOUND,
            prompt=TOKENS_OF_TEXT,
            length=1,
            end=0,
            beams=2,
            length_penalty=0.5,
        ),
        lambda tokens: tokens,
    ),
}
