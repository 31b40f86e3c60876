"""Schemes are exactly the architectures that they are said to be."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import WIDTH, fast_first, largest, make_equation, random_state
from published.numpy_blocks import attention, feed_forward, layer_norm

import ide_transformer as ide


def pre_norm_block(a, f, u, norms):
    u = u + attention(a, layer_norm(u))
    return u + feed_forward(f, layer_norm(u))


def parallel_block(a, f, u, norms):
    v = layer_norm(u)
    return u + attention(a, v) + feed_forward(f, v)


def macaron_block(a, f, u, norms):
    """Half a feed-forward, attention, half a feed-forward."""
    u = u + 0.5 * feed_forward(f, layer_norm(u))
    u = u + attention(a, layer_norm(u))
    return u + 0.5 * feed_forward(f, layer_norm(u))


def post_norm_block(a, f, u, norms):
    u = layer_norm(u + attention(a, u), *norms[0])
    return layer_norm(u + feed_forward(f, u), *norms[1])


def by_blocks(equation, u0, block):
    """The Transformer, layer by layer, in NumPy."""
    u = np.asarray(u0, dtype=float)
    for layer in range(equation.control.num_intervals):
        operators = equation.control(float(layer))
        a, f = sorted(operators, key=lambda x: type(x).__name__)
        norms = equation.constraint(float(layer))
        if isinstance(norms, tuple):
            norms = [(np.asarray(n.gain), np.asarray(n.bias)) for n in norms]
        else:
            norms = [(1.0, 0.0)] * 2
        u = block(a, f, u, norms)
    return u


def feed_forward_first(equation):
    control = ide.PiecewiseConstant(equation.control.blocks[::-1])
    return ide.Equation(control, ide.Free(), equation.domain)


def with_layer_norms(equation):
    """Post-norm with a gain and a bias of its own for each operator and layer."""
    gains = 1 + 0.3 * jax.random.normal(jax.random.key(7), (2, 3, WIDTH))
    biases = 0.3 * jax.random.normal(jax.random.key(8), (2, 3, WIDTH))
    norms = tuple(ide.LayerNorm(gains[i], biases[i]) for i in range(2))
    return ide.Equation(equation.control, ide.PiecewiseConstant(norms), equation.domain)


ARCHITECTURES = {
    "unsplit Euler is the parallel block": (diffrax.Euler(), parallel_block, {}),
    "Lie–Trotter(Euler) is the pre-norm block": (ide.LieTrotter(), pre_norm_block, {}),
    "Strang(Euler) is the Macaron net": (
        ide.Strang(diffrax.Euler()),
        macaron_block,
        {"change": feed_forward_first},
    ),
    "Lie–Trotter(Euler) on the sphere is the post-norm block": (
        ide.LieTrotter(ide.Projected(diffrax.Euler())),
        post_norm_block,
        {"constraint": ide.Sphere(eps=1e-5), "normalization": ide.Free()},
    ),
    "Lie–Trotter(Euler) with layer norms is the post-norm block": (
        ide.LieTrotter(ide.Projected(diffrax.Euler())),
        post_norm_block,
        {"normalization": ide.Free(), "change": with_layer_norms},
    ),
}


def architecture(name):
    solver, block, options = ARCHITECTURES[name]
    options = dict(options)
    change = options.pop("change", lambda equation: equation)
    return change(make_equation(**options)), solver, block


@pytest.mark.parametrize("name", fast_first(2, [*ARCHITECTURES][::-1]))
def test_architectures(name):
    """In double and in single precision."""
    equation, solver, block = architecture(name)
    u0 = random_state()
    expected = by_blocks(equation, u0, block)
    for dtype, bound in ((jnp.float64, 1e-12), (jnp.float32, 1e-5)):
        cast = jax.tree.map(
            lambda x, to=dtype: x.astype(to) if isinstance(x, jax.Array) else x, (equation, u0)
        )
        u1 = ide.solve(*cast, solver=solver, throw=False).u1
        assert u1.dtype == dtype
        assert largest(u1, expected) < bound * max(1, np.abs(expected).max())
    if block is macaron_block:
        # The feed-forward is outside because it is the first operator of the block.
        inner = ide.solve(make_equation(), u0, solver=solver, throw=False).u1
        assert largest(inner, expected) > 1e-3
