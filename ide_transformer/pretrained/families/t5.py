"""The encoder of T5 (Raffel et al., arXiv 1910.10683): pre-norm with RMSNorm. Scores have a
bias by distance, shared by all layers, and are not divided by sqrt(d)."""

import functools as ft
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import jax.numpy as jnp

from ...equation import FeedForward, GatedFeedForward, RelativeBias
from ...models import Model, States, TextInputs
from .. import make
from ..family import Family, Placement, block, linear, weights_of
from ..options import Options


_FEED_FORWARDS = {
    **{name: (FeedForward, function) for name, function in make.ACTIVATIONS.items()},
    **{f"gated-{name}": (GatedFeedForward, f) for name, f in make.ACTIVATIONS.items()},
    # The release calls the approximation "gelu".
    "gated-gelu": (GatedFeedForward, make.ACTIVATIONS["gelu_new"]),
}


def build(options: Options, tensors: Set[str]) -> Model:
    options = options.renamed(
        hidden_size="d_model", num_hidden_layers="num_layers", num_attention_heads="num_heads"
    )
    width = options.size("hidden_size")
    names = "relative_attention_num_buckets", "relative_attention_max_distance"
    buckets = options.size(names[0], 32)
    distance = options.size(names[1], 128)
    if not 4 <= buckets < 4 * distance:
        reason = f"not from 4 to {4 * distance - 1}, the most for {names[1]} = {distance}"
        raise options.refused(names[0], buckets, reason)
    bias = jnp.zeros((buckets, options.size("num_attention_heads")))
    parts = make.pre_norm(
        options,
        make.rms_norm(width, options.number("layer_norm_epsilon", 1e-6)),
        make.attention(
            options,
            head_features=options.size("d_kv", 64),
            positions=RelativeBias(bias, distance),
            bias=False,
        ),
        _feed_forward(options),
    )
    read_out = States(parts.pop("output_normalization"))
    embedding = jnp.zeros((options.size("vocab_size"), width))
    inputs = TextInputs(embedding, options.size("n_positions", 512))
    return Model(inputs, **parts, read_out=read_out)


def _feed_forward(options: Options) -> make.MakeOperator:
    """The feed-forward operator. Options that follow from its form must agree with it."""
    name = "feed_forward_proj"
    kind, activation = options.choose(name, _FEED_FORWARDS, "relu")
    form = options.get(name, "relu")
    activation_name = "gelu_new" if form == "gated-gelu" else form.removeprefix("gated-")
    implied = {"is_gated_act": kind is GatedFeedForward, "dense_act_fn": activation_name}
    for option, expected in implied.items():
        if (value := options.get(option, expected)) != expected:
            reason = f"not {expected!r}, which {name} = {form!r} implies"
            raise options.refused(option, value, reason)
    sizes = options.size("hidden_size"), options.size("d_ff")
    return ft.partial(kind, *sizes, activation=activation, bias=False)


def table(model: Any) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    layer = "encoder.block.{layer}.layer.0"
    head_features = attention.query.weight.shape[-1] // attention.heads
    query = f"{layer}.SelfAttention.q"
    # Scores here are divided by sqrt(d), T5's are not.
    yield from linear(attention.query, query, scale=head_features**0.5)
    yield from weights_of(attention, f"{layer}.SelfAttention", key="k", value="v", output="o")
    first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield Placement(attention.positions.table, first, repeated=True)
    yield from weights_of(attention, layer, normalization="layer_norm")
    layer = "encoder.block.{layer}.layer.1"
    names = dict(gate="wi_0", inner="wi", outer="wo")
    yield from weights_of(feed_forward, f"{layer}.DenseReluDense", **names)
    yield from weights_of(feed_forward, layer, normalization="layer_norm")
    yield from weights_of(model.inputs, embedding="shared.weight")
    yield from weights_of(model.read_out, normalization="encoder.final_layer_norm")


def _layers(layers: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
    # The decoder, which is not read, has by default as many layers as the encoder.
    decoder = options.get("num_decoder_layers") or options["num_layers"]
    return dict(num_layers=layers[0], num_decoder_layers=decoder)


FAMILIES = {
    "t5": Family(
        build,
        table,
        # The decoder's read-out may be a copy of the embedding.
        unread=r"decoder\..*|lm_head\.weight",
        copies={
            "encoder.embed_tokens.weight": "shared.weight",
            "decoder.embed_tokens.weight": "shared.weight",
            "lm_head.weight": "shared.weight",
        },
        # Dropout, and the decoder.
        harmless="classifier_dropout dropout_rate num_decoder_layers scale_decoder_outputs "
        "tie_word_embeddings",
        # Gated checkpoints call the matrix that is not the gate wi_1.
        renamed={"wi_1": "wi"},
        layers=_layers,
    )
}
