"""Recipes of models, generation and files."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer.models import functional

from .small import (
    CONTEXT,
    DOMAIN,
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
    image_parts,
    image_stage,
    language_model,
    listener,
    model_parts,
    of_functions,
    speech_encoder,
    state_model,
    text_encoder,
    tied_model,
)


MODELS = {
    "Mesh": Recipe(
        ide.Mesh,
        dict(
            intervals=2,
            horizon=2.0,
            steps_per_interval=2,
            solver=ide.RK4(),
            tokens=3,
            width=WIDTH,
        ),
        lambda mesh: functional(tied_model()).on(mesh)(TOKENS_OF_TEXT),
    ),
    "LanguageModel": Recipe(
        ide.LanguageModel,
        dict(
            vocabulary=VOCABULARY,
            context=CONTEXT,
            features=WIDTH,
            **model_parts(),
            learned_positions=True,
            tied=True,
            readout_bias=True,
            embedding_scale=1.0,
            input_normalization=ide.Free(),
            output_normalization=ide.Free(),
            dropout=0.1,
            std=0.1,
        ),
        lambda model: model(TOKENS_OF_TEXT),
    ),
    "Model": Recipe(
        ide.Model,
        dict(
            inputs=language_model().inputs,
            control=language_model().control,
            constraint=ide.Free(),
            discretization=ide.Discretization(ide.LieTrotter()),
            read_out=ide.TokenLogits(),
            space=ide.FunctionSpace(ide.Cosine(), WIDTH, ide.FeatureDomain(2 * WIDTH)),
        ),
        lambda model: model(TOKENS_OF_TEXT),
    ),
    "OperatorModel": Recipe(
        ide.OperatorModel,
        dict(
            points=TOKENS,
            features=WIDTH,
            **model_parts(SEEING_ALL),
            channels=2,
            modes=1,
            grid="periodic",
            wavelength=2.0,
            input_normalization=ide.Free(),
            output_normalization=ide.Free(),
            dropout=0.1,
            std=0.1,
        ),
        lambda model: model(np.ones((TOKENS, 2), np.float32)),
    ),
    "ImageClassifier": Recipe(
        ide.ImageClassifier,
        dict(
            image_shape=(2, 2, 1),
            patch=1,
            classes=3,
            features=WIDTH,
            **model_parts(SEEING_ALL),
            class_token=True,
            input_normalization=ide.Free(),
            output_normalization=ide.Free(),
            dropout=0.1,
            std=0.1,
        ),
        lambda model: model(IMAGE),
    ),
    "ImageEncoder": Recipe(
        ide.ImageEncoder, image_parts() | {"read_out": ide.States()}, lambda model: model(IMAGE)
    ),
    "ImageStage": Recipe(
        ide.ImageStage,
        dict(
            image_shape=(2, 2, 1),
            features=WIDTH,
            **model_parts(SEEING_ALL),
            window=3,
            stride=1,
            padding=1,
            class_token=True,
            classes=3,
            embedding_normalization=ide.LayerNorm(),
            input_normalization=ide.Free(),
            output_normalization=ide.Free(),
            dropout=0.1,
            std=0.1,
        ),
        lambda model: model(IMAGE),
    ),
    "StagedModel": Recipe(
        ide.StagedModel,
        dict(stages=(image_stage(1), image_stage(WIDTH))),
        lambda model: model(IMAGE),
    ),
    "StateModel": Recipe(
        ide.StateModel,
        dict(domain=DOMAIN, width=WIDTH, **encoder_parts()),
        lambda model: model(U0),
    ),
    "UShapedModel": Recipe(
        ide.UShapedModel,
        dict(model=state_model(), levels=(state_model(), state_model())),
        lambda model: model(jnp.ones((4, WIDTH))),
    ),
    "TextEncoder": Recipe(
        ide.TextEncoder,
        dict(
            embedding=jnp.ones((VOCABULARY, WIDTH)),
            positions=jnp.ones((CONTEXT, WIDTH)),
            segments=jnp.ones((2, WIDTH)),
            **encoder_parts(),
            padding=None,
            context=CONTEXT,
        ),
        lambda model: model(TOKENS_OF_TEXT),
    ),
    "SpeechEncoder": Recipe(
        ide.SpeechEncoder,
        dict(
            first_convolution=ide.TokenConvolution(2, WIDTH, key=KEY),
            second_convolution=ide.TokenConvolution(WIDTH, WIDTH, stride=2, key=KEY),
            positions=jnp.zeros((TOKENS, WIDTH)),
            **encoder_parts(),
        ),
        lambda model: model(SOUND),
    ),
    "EncoderDecoder": Recipe(
        ide.EncoderDecoder,
        dict(encoder=speech_encoder(), decoder=listener().with_inputs(listener().inputs.text)),
        lambda model: model(ide.SourceAndText(SOUND, TOKENS_OF_TEXT)),
    ),
    "TokenConvolution": Recipe(
        ide.TokenConvolution,
        dict(features_in=WIDTH, features_out=2, key=KEY, width=3, stride=1, std=0.1),
        lambda convolution: convolution(U0),
    ),
    "CachedDecoder": Recipe(
        ide.CachedDecoder,
        dict(model=language_model(), tokens=4),
        lambda decoder: decoder.prefill(TOKENS_OF_TEXT)[0],
    ),
    "why_not_cached": Recipe(ide.why_not_cached, {"model": language_model()}, lambda _: ()),
    "generate": Recipe(
        ide.generate,
        dict(
            model=language_model(),
            prompt=TOKENS_OF_TEXT,
            length=2,
            key=KEY,
            temperature=1.0,
            top_k=2,
            top_p=0.5,
        ),
        lambda tokens: tokens,
    ),
    "generate_greedy": Recipe(
        ide.generate_greedy,
        dict(model=listener(), source=SOUND, prompt=TOKENS_OF_TEXT, length=1, end=0),
        lambda tokens: tokens,
    ),
    "sentence_embedding": Recipe(
        ide.sentence_embedding, dict(model=text_encoder(), text=TOKENS_OF_TEXT), lambda x: x
    ),
    "Field": Recipe(
        ide.Field,
        dict(values=jnp.ones(TOKENS), domain=ide.TokenDomain.midpoint(TOKENS)),
        lambda field: of_functions()(field),
    ),
    "error_budget": Recipe(
        ide.error_budget,
        dict(model=of_functions(), inputs=lambda points: points[:, 0], tokens=TOKENS),
        lambda budget: budget.total,
    ),
    "Text": Recipe(
        ide.Text,
        dict(
            tokens=TOKENS_OF_TEXT,
            mask=jnp.array([True, True, False]),
            segments=jnp.zeros(TOKENS, int),
        ),
        lambda text: text_encoder()(text),
    ),
    "Encoded": Recipe(
        ide.Encoded,
        dict(states=U0, weights=jnp.ones(TOKENS)),
        lambda encoded: listener()(ide.SourceAndText(encoded, TOKENS_OF_TEXT)),
    ),
    "SourceAndText": Recipe(
        ide.SourceAndText,
        dict(source=SOUND, text=TOKENS_OF_TEXT),
        lambda inputs: listener()(inputs),
    ),
}

FILES = {
    "load_pretrained": Recipe(
        ide.load_pretrained, dict(path="no/such/folder", dtype=None), lambda _: ()
    ),
    "save_pretrained": Recipe(
        ide.save_pretrained,
        dict(model=language_model(), path="no/such/file.npz", like="no/such/folder"),
        lambda _: (),
    ),
    "load_model": Recipe(ide.load_model, dict(path="no/such/run", overrides=()), lambda _: ()),
    "load_run": Recipe(ide.load_run, {"path": Path("no/such/run")}, lambda _: ()),
}
