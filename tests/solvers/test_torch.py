"""The march against PyTorch's own Transformer layers, in float64."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first, largest, random_state

import ide_transformer as ide


pytestmark = pytest.mark.heavy


@pytest.fixture(autouse=True)
def optimised():
    """Compiled as users compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


WIDTH, HEADS, HIDDEN, LAYERS, TOKENS = 24, 4, 40, 3, 7


def torch_stack(norm_first, activation):
    import torch

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        *(WIDTH, HEADS, HIDDEN),
        dropout=0.0,
        activation=activation,
        batch_first=True,
        norm_first=norm_first,
        dtype=torch.float64,
    )
    stack = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).eval()
    for parameter in stack.parameters():
        # PyTorch copies one layer, with zeros and ones for vectors: an error would hide.
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    return stack


def array(tensor):
    return jnp.asarray(tensor.detach().numpy())


def block_from(layer, norm_first, activation):
    """The attention, the feed-forward and the two layer norms with the weights of a layer."""

    def norm(module):
        return ide.LayerNorm(array(module.weight), array(module.bias), module.eps)

    norms = norm(layer.norm1), norm(layer.norm2)
    inner = norms if norm_first else (ide.Free(), ide.Free())
    key = jax.random.key(0)
    attention = ide.Attention(WIDTH, HEADS, key=key, normalization=inner[0])
    feed_forward = ide.FeedForward(
        WIDTH, HIDDEN, key=key, activation=activation, normalization=inner[1]
    )
    weights = layer.self_attn.in_proj_weight.chunk(3)
    biases = layer.self_attn.in_proj_bias.chunk(3)
    pairs = [
        *zip((attention.query, attention.key, attention.value), weights, biases, strict=True),
        (attention.output, layer.self_attn.out_proj.weight, layer.self_attn.out_proj.bias),
        (feed_forward.inner, layer.linear1.weight, layer.linear1.bias),
        (feed_forward.outer, layer.linear2.weight, layer.linear2.bias),
    ]
    for linear, weight, bias in pairs:
        object.__setattr__(linear, "weight", array(weight).T)
        object.__setattr__(linear, "bias", array(bias))
    return (attention, feed_forward), norms


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.mark.parametrize(
    ("norm_first", "activation", "padded"),
    fast_first(
        0,
        [
            (True, "relu", False),
            (False, "gelu", True),
            (True, "gelu", True),
            (False, "relu", False),
            (True, "gelu", False),
            (False, "relu", True),
            (True, "relu", True),
            (False, "gelu", False),
        ],
        heavy=4,
    ),
)
def test_encoder_layers(norm_first, activation, padded):
    import torch

    stack = torch_stack(norm_first, activation)
    pairs = [block_from(layer, norm_first, getattr(ide, activation)) for layer in stack.layers]
    control = ide.PiecewiseConstant(stacked([block for block, _ in pairs]))
    domain = ide.TokenDomain.uniform(TOKENS)
    mask = np.arange(TOKENS)[None, :] < np.array([[TOKENS], [4]])
    if padded:
        domain = domain.padded(jnp.asarray(mask))
    if norm_first:
        constraint, solver = ide.Free(), ide.LieTrotter(diffrax.Euler())
    else:
        constraint = ide.PiecewiseConstant(stacked([norms for _, norms in pairs]))
        solver = ide.LieTrotter(ide.Projected(diffrax.Euler()))
    u0 = random_state(2, tokens=TOKENS, width=WIDTH)
    with torch.no_grad():
        expected = stack(
            torch.from_numpy(np.array(u0)),
            src_key_padding_mask=torch.from_numpy(~mask) if padded else None,
        ).numpy()
    equation = ide.Equation(control, constraint, domain)
    u1 = ide.solve(equation, u0, solver=solver).u1
    seen = mask[..., None] if padded else np.ones((2, TOKENS, 1), bool)
    error = np.abs(np.where(seen, np.asarray(u1) - expected, 0)).max()
    assert error < 1e-10 * np.abs(expected).max()
    assert largest(u1, u0) > 0.1
