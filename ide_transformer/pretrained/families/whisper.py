"""Whisper (Radford et al., arXiv 2212.04356): pre-norm encoder of speech and decoder of text,
joined by cross-attention; keys without a bias."""

from collections.abc import Iterator, Set

import jax
import jax.numpy as jnp

from ...equation import Attention, CrossAttention, FeedForward, Free
from ...models import EncoderDecoder, LanguageModel, SpeechEncoder, TokenConvolution
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..parts import KEY, PRE_NORM, layer_norm, layers
from ..placement import Placement, linear, norm


_EPS = 1e-5


def build(fields: Fields, names: Set[str]) -> EncoderDecoder:
    fields.allow("scale_embedding", False)
    fields.allow("tie_word_embeddings", True)
    return EncoderDecoder(_encoder(fields), _decoder(fields))


def _encoder(fields: Fields) -> SpeechEncoder:
    width, heads = fields.get("d_model"), fields.get("encoder_attention_heads")
    hidden = fields.get("encoder_ffn_dim")

    def block(key):
        keys = jax.random.split(key)
        return (
            _self_attention(width, heads, causal=False, key=keys[0]),
            _feed_forward(fields, width, hidden, key=keys[1]),
        )

    return SpeechEncoder(
        TokenConvolution(fields.get("num_mel_bins", 80), width, key=KEY),
        TokenConvolution(width, width, stride=2, key=KEY),
        jnp.zeros((fields.get("max_source_positions", 1500), width)),
        control=layers(block, fields.get("encoder_layers")),
        constraint=Free(),
        discretization=PRE_NORM,
        output_normalization=layer_norm(width, _EPS),
    )


def _decoder(fields: Fields) -> LanguageModel:
    width, heads = fields.get("d_model"), fields.get("decoder_attention_heads")
    hidden = fields.get("decoder_ffn_dim")

    def block(key):
        keys = jax.random.split(key, 3)
        return (
            _self_attention(width, heads, causal=True, key=keys[0]),
            CrossAttention(
                width,
                heads,
                normalization=layer_norm(width, _EPS),
                key_bias=False,
                key=keys[1],
            ),
            _feed_forward(fields, width, hidden, key=keys[2]),
        )

    return LanguageModel(
        fields.get("vocab_size"),
        fields.get("max_target_positions", 448),
        width,
        control=layers(block, fields.get("decoder_layers")),
        constraint=Free(),
        discretization=PRE_NORM,
        output_normalization=layer_norm(width, _EPS),
        key=KEY,
    )


def _self_attention(width: int, heads: int, *, causal: bool, key) -> Attention:
    return Attention(
        width,
        heads,
        causal=causal,
        normalization=layer_norm(width, _EPS),
        key_bias=False,
        key=key,
    )


def _feed_forward(fields: Fields, width: int, hidden: int, *, key) -> FeedForward:
    return FeedForward(
        width,
        hidden,
        activation=fields.choose("activation_function", ACTIVATIONS, "gelu"),
        normalization=layer_norm(width, _EPS),
        key=key,
    )


def table(model: EncoderDecoder) -> Iterator[Placement]:
    yield from _encoder_table(model.encoder)  # pyright: ignore
    yield from _decoder_table(model.decoder)


def _encoder_table(encoder: SpeechEncoder) -> Iterator[Placement]:
    attention, feed_forward = encoder.control.blocks  # pyright: ignore
    layer = "encoder.layers.{layer}"
    yield from _convolution_table(encoder.first_convolution, "encoder.conv1")
    yield from _convolution_table(encoder.second_convolution, "encoder.conv2")
    yield Placement(encoder.positions, "encoder.embed_positions.weight")
    yield from _attention_table(attention, layer, "self_attn")
    yield from _feed_forward_table(feed_forward, layer)
    yield from norm(encoder.output_normalization, "encoder.layer_norm")


def _decoder_table(decoder: LanguageModel) -> Iterator[Placement]:
    attention, cross_attention, feed_forward = decoder.control.blocks  # pyright: ignore
    layer = "decoder.layers.{layer}"
    yield Placement(decoder.embedding, "decoder.embed_tokens.weight")
    yield Placement(decoder.positions, "decoder.embed_positions.weight")
    yield from _attention_table(attention, layer, "self_attn")
    yield from _attention_table(cross_attention, layer, "encoder_attn")
    yield from _feed_forward_table(feed_forward, layer)
    yield from norm(decoder.output_normalization, "decoder.layer_norm")


def _convolution_table(convolution: TokenConvolution, name: str) -> Iterator[Placement]:
    """PyTorch stores `[out, in, width]`."""
    yield Placement(convolution.weight, f"{name}.weight", axes=(2, 1, 0))
    yield Placement(convolution.bias, f"{name}.bias")


def _attention_table(
    attention: Attention | CrossAttention, layer: str, name: str
) -> Iterator[Placement]:
    yield from linear(attention.query, f"{layer}.{name}.q_proj")
    yield from linear(attention.key, f"{layer}.{name}.k_proj")
    yield from linear(attention.value, f"{layer}.{name}.v_proj")
    yield from linear(attention.output, f"{layer}.{name}.out_proj")
    yield from norm(attention.normalization, f"{layer}.{name}_layer_norm")


def _feed_forward_table(feed_forward: FeedForward, layer: str) -> Iterator[Placement]:
    yield from linear(feed_forward.inner, f"{layer}.fc1")
    yield from linear(feed_forward.outer, f"{layer}.fc2")
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
