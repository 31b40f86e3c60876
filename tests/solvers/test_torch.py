"""The march against PyTorch's own Transformer layers, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest, random_state

import ide_transformer as ide


WIDTH, HEADS, HIDDEN, LAYERS, TOKENS = 24, 4, 40, 3, 7


def torch_stack(**options):
    import torch

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        *(WIDTH, HEADS, HIDDEN), dropout=0.0, batch_first=True, dtype=torch.float64, **options
    )
    stack = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).eval()
    for parameter in stack.parameters():
        # PyTorch copies one layer, with zeros and ones for vectors: an error would hide.
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    return stack


def block_from(layer, norm_first, activation):
    """The attention, the feed-forward and the two layer norms with the weights of a layer."""

    def array(tensor):
        return jnp.asarray(tensor.detach().numpy())

    norms = tuple(
        ide.LayerNorm(array(x.weight), array(x.bias), x.eps) for x in (layer.norm1, layer.norm2)
    )
    first, second = norms if norm_first else (ide.Free(), ide.Free())
    key = jax.random.key(0)
    attention = ide.Attention(WIDTH, HEADS, key=key, normalization=first)
    feed_forward = ide.FeedForward(
        *(WIDTH, HIDDEN), key=key, activation=activation, normalization=second
    )
    own = layer.self_attn
    weights, biases = own.in_proj_weight.chunk(3), own.in_proj_bias.chunk(3)
    pairs = [
        *zip((attention.query, attention.key, attention.value), weights, biases, strict=True),
        (attention.output, own.out_proj.weight, own.out_proj.bias),
        (feed_forward.inner, layer.linear1.weight, layer.linear1.bias),
        (feed_forward.outer, layer.linear2.weight, layer.linear2.bias),
    ]
    for linear, weight, bias in pairs:
        object.__setattr__(linear, "weight", array(weight).T)
        object.__setattr__(linear, "bias", array(bias))
    return (attention, feed_forward), norms


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("norm_first", "activation", "padded"), [(True, "gelu", True), (False, "relu", False)]
)
def test_encoder_layers(norm_first, activation, padded):
    import torch

    stack = torch_stack(norm_first=norm_first, activation=activation)
    layers = [block_from(layer, norm_first, getattr(ide, activation)) for layer in stack.layers]
    blocks, norms = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    mask = np.arange(TOKENS)[None, :] < np.array([[TOKENS], [4 if padded else TOKENS]])
    domain = ide.TokenDomain.uniform(TOKENS)
    domain = domain.padded(jnp.asarray(mask)) if padded else domain
    constraint = ide.Free() if norm_first else ide.PiecewiseConstant(norms)
    u0 = random_state(2, tokens=TOKENS, width=WIDTH)
    hidden = torch.from_numpy(~mask) if padded else None
    with torch.no_grad():
        expected = stack(torch.from_numpy(np.array(u0)), src_key_padding_mask=hidden).numpy()
    equation = ide.Equation(ide.PiecewiseConstant(blocks), constraint, domain)
    u1 = ide.solve(equation, u0, solver=ide.LieTrotter()).u1
    error = np.abs(np.where(mask[..., None], np.asarray(u1) - expected, 0)).max()
    assert error < 1e-10 * np.abs(expected).max()
    assert largest(u1, u0) > 0.1
