"""Whisper (Radford et al., arXiv 2212.04356): pre-norm encoder of speech and decoder of text,
joined by cross-attention; keys without a bias."""

import functools as ft
from collections.abc import Iterator, Set

import jax.numpy as jnp

from ...equation import Attention, CrossAttention, FeedForward
from ...models import EncoderDecoder, LanguageModel, SpeechEncoder, TokenConvolution
from ..builders import any_key, layer_norm, pre_norm
from ..family import ACTIVATIONS, Family
from ..options import Options
from ..placement import Placement, block, linears, norm


_EPS = 1e-5


def build(options: Options, tensors: Set[str]) -> EncoderDecoder:
    options.allow("scale_embedding", False)
    options.allow("tie_word_embeddings", True)
    width = options.get("d_model")
    normalization = layer_norm(width, _EPS)
    attention = ft.partial(Attention, width, normalization=normalization, key_bias=False)
    cross_attention = ft.partial(
        CrossAttention, width, normalization=normalization, key_bias=False
    )
    feed_forward = ft.partial(
        FeedForward,
        width,
        activation=options.choose("activation_function", ACTIVATIONS, "gelu"),
        normalization=normalization,
    )
    heads = options.get("encoder_attention_heads")
    encoder = SpeechEncoder(
        TokenConvolution(options.get("num_mel_bins", 80), width, key=any_key()),
        TokenConvolution(width, width, stride=2, key=any_key()),
        jnp.zeros((options.get("max_source_positions", 1500), width)),
        **pre_norm(
            options.get("encoder_layers"),
            ft.partial(attention, heads),
            ft.partial(feed_forward, options.get("encoder_ffn_dim")),
        ),
        output_normalization=normalization,
    )
    heads = options.get("decoder_attention_heads")
    decoder = LanguageModel(
        options.get("vocab_size"),
        options.get("max_target_positions", 448),
        width,
        **pre_norm(
            options.get("decoder_layers"),
            ft.partial(attention, heads, causal=True),
            ft.partial(cross_attention, heads),
            ft.partial(feed_forward, options.get("decoder_ffn_dim")),
        ),
        output_normalization=normalization,
        key=any_key(),
    )
    return EncoderDecoder(encoder, decoder)


def table(model: EncoderDecoder) -> Iterator[Placement]:
    assert isinstance(model.encoder, SpeechEncoder)
    yield from _encoder_table(model.encoder)
    yield from _decoder_table(model.decoder)


def _encoder_table(encoder: SpeechEncoder) -> Iterator[Placement]:
    attention, feed_forward = block(encoder.control)
    layer = "encoder.layers.{layer}"
    yield from _convolution(encoder.first_convolution, "encoder.conv1")
    yield from _convolution(encoder.second_convolution, "encoder.conv2")
    yield Placement(encoder.positions, "encoder.embed_positions.weight")
    yield from _attention(attention, f"{layer}.self_attn")
    yield from _feed_forward(feed_forward, layer)
    yield from norm(encoder.output_normalization, "encoder.layer_norm")


def _decoder_table(decoder: LanguageModel) -> Iterator[Placement]:
    attention, cross_attention, feed_forward = block(decoder.control)
    layer = "decoder.layers.{layer}"
    yield Placement(decoder.embedding, "decoder.embed_tokens.weight")
    yield Placement(decoder.positions, "decoder.embed_positions.weight")
    yield from _attention(attention, f"{layer}.self_attn")
    yield from _attention(cross_attention, f"{layer}.encoder_attn")
    yield from _feed_forward(feed_forward, layer)
    yield from norm(decoder.output_normalization, "decoder.layer_norm")


def _convolution(convolution: TokenConvolution, name: str) -> Iterator[Placement]:
    """PyTorch stores `[out, in, width]`."""
    yield Placement(convolution.weight, f"{name}.weight", axes=(2, 1, 0))
    yield Placement(convolution.bias, f"{name}.bias")


def _attention(attention: Attention | CrossAttention, name: str) -> Iterator[Placement]:
    names = dict(query="q_proj", key="k_proj", value="v_proj", output="out_proj")
    yield from linears(attention, name, **names)
    yield from norm(attention.normalization, f"{name}_layer_norm")


def _feed_forward(feed_forward: FeedForward, layer: str) -> Iterator[Placement]:
    yield from linears(feed_forward, layer, inner="fc1", outer="fc2")
    yield from norm(feed_forward.normalization, f"{layer}.final_layer_norm")


FAMILIES = {
    "whisper": Family(
        build,
        table,
        prefix="model.",
        # The read-out is the token embedding.
        ignored=r"proj_out\.weight",
    )
}
