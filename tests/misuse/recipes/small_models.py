"""Small models, made once, and their inputs."""

from functools import cache

import jax.numpy as jnp
import numpy as np

import ide_transformer as ide

from .small import CONTEXT, CONTROL, KEY, SEEING_ALL, TOKENS, VOCABULARY, WIDTH, block


@cache
def language_model(**options) -> ide.Model:
    arguments = dict(vocabulary=VOCABULARY, context=CONTEXT, features=WIDTH)
    return ide.LanguageModel(**arguments, **model_parts(), **options)


@cache
def tied_model() -> ide.Model:
    arguments = dict(vocabulary=VOCABULARY, context=CONTEXT, features=WIDTH)
    return ide.LanguageModel(**arguments, **model_parts(ide.Tied(block(KEY), 2)))


def model_parts(control=CONTROL):
    return dict(
        control=control,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        key=KEY,
    )


def encoder_parts(control=CONTROL):
    return {name: x for name, x in model_parts(control).items() if name != "key"}


def linear(features_in, features_out):
    return ide.ImageClassifier(
        (1, 1, features_in), 1, features_out, features_out, **model_parts()
    ).inputs.embedding


@cache
def of_functions():
    return ide.OperatorModel(
        TOKENS, WIDTH, **model_parts(SEEING_ALL), modes=1, grid="midpoint", std=0.1
    )


@cache
def text_encoder():
    return ide.TextEncoder(jnp.ones((VOCABULARY, WIDTH)), **encoder_parts(), context=CONTEXT)


@cache
def speech_encoder(**changes):
    arguments = dict(
        first_convolution=ide.TokenConvolution(2, WIDTH, key=KEY),
        second_convolution=ide.TokenConvolution(WIDTH, WIDTH, stride=2, key=KEY),
        positions=jnp.zeros((TOKENS, WIDTH)),
    )
    return ide.SpeechEncoder(**(arguments | changes), **encoder_parts())


SOUND = np.ones((2, 2 * TOKENS), np.float32)
IMAGE = np.ones((2, 2, 1), np.float32)


@cache
def listener():
    def layer(key):
        attention, feed_forward = block(key)
        return attention, ide.CrossAttention(WIDTH, 2, key=key), feed_forward

    decoder = ide.LanguageModel(
        VOCABULARY,
        CONTEXT,
        WIDTH,
        **(model_parts() | {"control": ide.PiecewiseConstant.build(layer, 2, key=KEY)}),
    )
    return ide.EncoderDecoder(speech_encoder(), decoder)


def image_parts():
    return dict(
        image_shape=(2, 2, 1),
        patch=1,
        embedding=linear(1, WIDTH),
        prefix=(jnp.zeros(WIDTH),),
        positions=jnp.zeros((5, WIDTH)),
        **encoder_parts(SEEING_ALL),
    )


@cache
def image_stage(channels):
    return ide.ImageStage((2, 2, channels), WIDTH, **model_parts(SEEING_ALL))


@cache
def state_model():
    return ide.StateModel(ide.TokenDomain.uniform(4), WIDTH, **encoder_parts(SEEING_ALL))


def headed(read_out):
    return ide.ImageEncoder(**image_parts(), read_out=read_out)(IMAGE)
