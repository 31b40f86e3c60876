"""Whisper (Radford et al., arXiv 2212.04356): a pre-norm encoder of speech and decoder of text,
joined by cross-attention. Keys have no bias."""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import jax.numpy as jnp

from ide_transformer.contrib.audio import AudioInputs, TokenConvolution
from ide_transformer.contrib.encoder_decoder import EncoderDecoder
from ide_transformer.equation import CrossAttention
from ide_transformer.models import Model, States
from ide_transformer.pretrained import (
    Family,
    Options,
    Placement,
    block,
    linear,
    make,
    weights_of,
)


def build(options: Options, tensors: Set[str]) -> Model:
    options.allow("scale_embedding", False)
    options.allow("tie_word_embeddings", True)
    # Some files also have this key, which the library reads as the layers of the encoder.
    options.allow("num_hidden_layers", options.size("encoder_layers"))
    width = options.size("d_model")
    normalization = make.layer_norm(width, 1e-5)
    speech = _half(options, "encoder")
    text = _half(options, "decoder")
    inputs = AudioInputs(
        TokenConvolution(options.size("num_mel_bins", 80), width, key=make.any_key()),
        TokenConvolution(width, width, stride=2, key=make.any_key()),
        jnp.zeros((options.size("max_source_positions", 1500), width)),
    )
    parts = make.pre_norm(
        speech, normalization, make.attention(speech, key_bias=False), make.feed_forward(speech)
    )
    read_out = States(parts.pop("output_normalization"))
    encoder = Model(inputs, **parts, read_out=read_out)
    decoder = make.language_model(
        text,
        normalization,
        make.attention(text, causal=True, key_bias=False),
        make.attention(text, CrossAttention, key_bias=False),
        make.feed_forward(text),
        context=448,
        tied=True,
    )
    return EncoderDecoder(encoder, decoder)


def _half(options: Options, name: str) -> Options:
    """The options of the encoder or of the decoder."""
    return options.renamed(
        hidden_size="d_model",
        num_hidden_layers=f"{name}_layers",
        num_attention_heads=f"{name}_attention_heads",
        intermediate_size=f"{name}_ffn_dim",
        max_position_embeddings="max_target_positions",
        hidden_act="activation_function",
    )


def table(model: Any) -> Iterator[Placement]:
    encoder = model.inputs.encoder
    text = model.inputs.text
    attention, feed_forward = block(encoder.control)
    # PyTorch stores convolutions as `[out, in, width]`.
    yield from linear(encoder.inputs.first_convolution, "encoder.conv1", axes=(2, 1, 0))
    yield from linear(encoder.inputs.second_convolution, "encoder.conv2", axes=(2, 1, 0))
    yield from _place_attention(attention, "encoder", "self_attn")
    yield from _place_half(encoder.inputs, encoder.read_out, feed_forward, "encoder")
    attention, cross_attention, feed_forward = block(model.control)
    yield from weights_of(text, embedding="decoder.embed_tokens.weight")
    yield from _place_attention(attention, "decoder", "self_attn")
    yield from _place_attention(cross_attention, "decoder", "encoder_attn")
    yield from _place_half(text, model.read_out, feed_forward, "decoder")


def _place_attention(attention: Any, half: str, name: str) -> Iterator[Placement]:
    layer = f"{half}.layers.{{layer}}"
    names = dict(query="q_proj", key="k_proj", value="v_proj", output="out_proj")
    yield from weights_of(attention, f"{layer}.{name}", **names)
    yield from weights_of(attention, layer, normalization=f"{name}_layer_norm")


def _place_half(
    inputs: Any, read_out: Any, feed_forward: Any, half: str
) -> Iterator[Placement]:
    names = dict(inner="fc1", outer="fc2", normalization="final_layer_norm")
    yield from weights_of(feed_forward, f"{half}.layers.{{layer}}", **names)
    yield from weights_of(inputs, half, positions="embed_positions.weight")
    yield from weights_of(read_out, half, normalization="layer_norm")


def _layers(layers: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
    encoder, decoder = layers
    changes: dict[str, Any] = dict(encoder_layers=encoder, decoder_layers=decoder)
    if "num_hidden_layers" in options:
        changes["num_hidden_layers"] = encoder
    return changes


FAMILIES = {
    "whisper": Family(
        build,
        table,
        prefix="model.",
        copies={"proj_out.weight": "decoder.embed_tokens.weight"},
        # For training, classification of speech, timestamps and generation.
        harmless="activation_dropout apply_spec_augment attention_dropout "
        "classifier_proj_size decoder_layerdrop dropout encoder_layerdrop forced_decoder_ids "
        "init_std mask_feature_length mask_feature_min_masks mask_feature_prob "
        "mask_time_length mask_time_min_masks mask_time_prob median_filter_width "
        "use_weighted_layer_sum",
        layers=_layers,
    )
}
