"""Recipes of inputs and read-outs, each used in a model of the smallest size."""

import jax.numpy as jnp
import numpy as np

import ide_transformer as ide

from .small import (
    CONTEXT,
    KEY,
    SEEING_ALL,
    TOKENS,
    TOKENS_OF_TEXT,
    U0,
    VOCABULARY,
    WIDTH,
    Recipe,
)
from .small_models import (
    IMAGE,
    SOUND,
    encoder_parts,
    headed,
    image_stage,
    language_model,
    linear,
    listener,
    of_functions,
    speech_encoder,
    state_model,
)


def entered(given):
    """A use of inputs: the states that a model of them makes of this."""
    return lambda inputs: ide.Model(inputs, **encoder_parts(SEEING_ALL), read_out=ide.States())(
        given
    )


def read(model):
    """A use of a read-out: the outputs for a state of the inputs of a model."""
    return lambda read_out: read_out(U0, model.inputs)


_TABLES = dict(vocabulary=VOCABULARY, context=CONTEXT, features=WIDTH, key=KEY)
_ENDS = dict(input_normalization=ide.Free(), dropout=0.1, std=0.1)
STAGE = image_stage(WIDTH).inputs

ENDS = {
    "TextInputs": Recipe(
        ide.TextInputs,
        dict(
            embedding=jnp.ones((VOCABULARY, WIDTH)),
            context=CONTEXT,
            positions=jnp.ones((CONTEXT, WIDTH)),
            segments=jnp.ones((2, WIDTH)),
            prefix=(jnp.zeros(WIDTH),),
            lift=linear(WIDTH, WIDTH),
            normalization=ide.Free(),
            padding=None,
            scale=1.0,
            dropout=0.1,
            masks=False,
        ),
        entered(TOKENS_OF_TEXT),
    ),
    "TextInputs.build": Recipe(
        ide.TextInputs.build,
        dict(
            **_TABLES,
            **_ENDS,
            learned_positions=True,
            class_token=True,
            own_velocity=False,
            embedding_scale=1.0,
            masks=False,
        ),
        entered(TOKENS_OF_TEXT),
    ),
    "ImageInputs": Recipe(
        ide.ImageInputs,
        dict(
            image_shape=(2, 2, 1),
            embedding=linear(1, WIDTH),
            stride=1,
            window=1,
            padding=0,
            prefix=(jnp.zeros(WIDTH),),
            positions=jnp.zeros((5, WIDTH)),
            embedding_normalization=ide.Free(),
            normalization=ide.Free(),
            area_weights=True,
            fixed_size=True,
            dropout=0.1,
        ),
        entered(IMAGE),
    ),
    "FunctionInputs": Recipe(
        ide.FunctionInputs,
        dict(
            points=TOKENS,
            embedding=linear(4, WIDTH),
            channels=2,
            modes=1,
            grid="midpoint",
            wavelength=2.0,
            normalization=ide.Free(),
            dropout=0.1,
        ),
        entered(np.ones((TOKENS, 2), np.float32)),
    ),
    "AudioInputs": Recipe(
        ide.AudioInputs,
        dict(
            first_convolution=ide.TokenConvolution(2, WIDTH, key=KEY),
            second_convolution=ide.TokenConvolution(WIDTH, WIDTH, stride=2, key=KEY),
            positions=jnp.zeros((TOKENS, WIDTH)),
        ),
        entered(SOUND),
    ),
    "GridInputs": Recipe(
        ide.GridInputs, dict(domain=ide.TokenDomain.uniform(TOKENS), width=WIDTH), entered(U0)
    ),
    "StageInputs": Recipe(
        ide.StageInputs, dict(before=image_stage(1), windows=STAGE), entered(IMAGE)
    ),
    "VCycleInputs": Recipe(
        ide.VCycleInputs,
        dict(inputs=state_model().inputs, levels=(state_model(), state_model())),
        entered(jnp.ones((4, WIDTH))),
    ),
    "EncodedInputs": Recipe(
        ide.EncodedInputs,
        dict(encoder=speech_encoder(), text=listener().inputs.text),
        lambda inputs: listener().with_inputs(inputs)(ide.SourceAndText(SOUND, TOKENS_OF_TEXT)),
    ),
    "TokenLogits": Recipe(
        ide.TokenLogits,
        dict(
            weight=jnp.ones((VOCABULARY, WIDTH)),
            bias=jnp.ones(VOCABULARY),
            normalization=ide.LayerNorm(),
        ),
        read(language_model()),
    ),
    "TokenLogits.build": Recipe(
        ide.TokenLogits.build,
        dict(
            vocabulary=VOCABULARY,
            features=WIDTH,
            key=KEY,
            tied=False,
            readout_bias=True,
            output_normalization=ide.LayerNorm(),
            std=0.1,
        ),
        read(language_model()),
    ),
    "FunctionValues": Recipe(
        ide.FunctionValues,
        dict(linear=linear(WIDTH, 2), normalization=ide.Free(), channels=True),
        read(of_functions()),
    ),
    "States": Recipe(
        ide.States, dict(normalization=ide.LayerNorm(), pooler=linear(WIDTH, 2)), headed
    ),
    "MeanHead": Recipe(
        ide.MeanHead, dict(classifier=linear(WIDTH, 3), normalization=ide.Free()), headed
    ),
    "PrefixHead": Recipe(
        ide.PrefixHead, dict(classifiers=(linear(WIDTH, 3),), normalization=ide.Free()), headed
    ),
    "PrefixAndMeanHead": Recipe(
        ide.PrefixAndMeanHead,
        dict(classifier=linear(2 * WIDTH, 3), normalization=ide.Free()),
        headed,
    ),
    "Linear": Recipe(
        ide.Linear,
        dict(features_in=WIDTH, features_out=2, bias=True, std=0.1, key=KEY),
        lambda linear: linear(U0),
    ),
    "functional": Recipe(
        ide.functional, {"model": language_model()}, lambda model: model(TOKENS_OF_TEXT)
    ),
}
