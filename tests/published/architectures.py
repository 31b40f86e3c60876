"""The published architectures of configs/schemes/, written out in NumPy: from the blocks of a
model and the state at depth 0, and where they need them the inputs, to the state at depth T."""

import equinox as eqx
import jax
import numpy as np
from published.connections import (
    attention_residual,
    dense_former,
    doubly_stochastic_connections,
    hyper_connections,
)
from published.numpy_blocks import (
    attend,
    attention,
    block_residual,
    feed,
    feed_forward,
    layer_norm,
    linear,
    norm,
    oracles,
)


def transformer_prenorm(blocks, u, model):
    for a, f in blocks:
        u = u + attend(a, u)
        u = u + feed(f, u)
    return u


def transformer_postnorm(blocks, u, model):
    for layer, (a, f) in enumerate(blocks):
        first, second = model.constraint(float(layer))
        u = layer_norm(u + attention(a, u), np.asarray(first.gain))
        u = layer_norm(u + feed_forward(f, u), np.asarray(second.gain))
    return u


def parallel_block(blocks, u, model):
    for a, f in blocks:
        u = u + attend(a, u) + feed(f, u)
    return u


def macaron(blocks, u, model):
    for f, a in blocks:
        u = u + 0.5 * feed(f, u)
        u = u + attend(a, u)
        u = u + 0.5 * feed(f, u)
    return u


def ode_transformer_rk2(blocks, u, model):
    gate_layer = model.solver.solver
    weight, bias = np.asarray(gate_layer.weight), float(gate_layer.bias)
    for block in blocks:
        first = block_residual(block, u)
        second = block_residual(block, u + first)
        both = np.concatenate([first, second], axis=-1)
        gate = 1 / (1 + np.exp(-(both @ weight + bias)))[:, None]
        u = u + gate * first + (1 - gate) * second
    return u


def ode_transformer_rk4(blocks, u, model):
    for block in blocks:
        k1 = block_residual(block, u)
        k2 = block_residual(block, u + k1 / 2)
        k3 = block_residual(block, u + k2 / 2)
        k4 = block_residual(block, u + k3)
        u = u + (k1 + 2 * k2 + 2 * k3 + k4) / 6
    return u


# Dormand and Prince's method of order five.
DOPRI5 = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)


def n_ode(blocks, u, model):
    """A step of length one in each layer; without layer norms, on all tokens."""

    def field(block, u):
        after = u + attention(block[0], u, causal=False)
        return after + feed_forward(block[1], after) - u

    for block in blocks:
        k = []
        for row in DOPRI5:
            k.append(field(block, u + sum(a * x for a, x in zip(row, k, strict=True))))
        u = u + sum(a * x for a, x in zip(DOPRI5[-1], k[:6], strict=True))
    return u


def diffeqformer(blocks, u, model):
    """Weights made by the hypernetwork, in NumPy too."""
    control = model.control
    inner, outer = np.asarray(control.inner), np.asarray(control.outer)
    for layer in range(4):
        t = layer / 4
        angles = np.pi * t * 2.0 ** np.arange((len(inner) - 1) // 2)
        hidden = np.concatenate([np.sin(angles), np.cos(angles), [1.0]]) @ inner
        hidden = np.append(hidden / (1 + np.exp(-hidden)), 1.0)
        basis = np.append(1.0, hidden @ outer)
        block = jax.tree.map(
            lambda x, b=basis: np.tensordot(b, x, axes=1) if eqx.is_array(x) else x,
            control.coefficients,
        )
        u = u + attend(block[0], u) + feed(block[1], u)
    return u


def yuriiformer(blocks, u, model, tokens):
    solver, v = model.solver, np.asarray(model.inputs.velocity)[tokens]
    beta, mu, gamma = (
        np.asarray(x.value) for x in (solver.momentum, solver.lookahead, solver.gain)
    )
    for place, oracle in oracles(blocks):
        v = layer_norm(beta[place] * v + gamma[place] * oracle(u + mu[place] * v))
        u = u + v
    return u


def sympformer(blocks, u, model):
    solver, v = model.solver, np.zeros_like(u)
    log, lin = (np.asarray(x.value) for x in (solver.logarithmic, solver.linear))
    for (layer, index), oracle in oracles(blocks):
        grown = log[layer, index] * np.log((layer + 2) / (layer + 1)) + lin[layer, index]
        v = layer_norm(np.exp(-grown) * (v + oracle(u)))
        u = u + v
    return u


def layer_norm_scaling(blocks, u, model):
    for layer, (a, f) in enumerate(blocks):
        a, f, root = a.operator, f.operator, np.sqrt(layer + 1)
        u = u + attention(a, norm(a, u) / root)
        u = u + feed_forward(f, norm(f, u) / root)
    return u


def bidirectional(blocks, u, model):
    """As it evaluates: γ = 0, the mean of those that are drawn in training."""
    return transformer_prenorm(blocks, u, model)


def ot_transformer(blocks, u, model):
    for first, second, third, fourth in blocks:
        x = u + attend(first, u)
        x = x + feed(second, x)
        x = x + attend(third, x)
        x = x + feed(fourth, x)
        u = u + x / 4
    return u


def reversible_leapfrog(blocks, u, model):
    before, u = u, u + block_residual(blocks[0], u)
    for block in blocks[1:]:
        before, u = u, before + 2 * block_residual(block, u)
    return u


def paper_encoder(blocks, u, model):
    """Sub-steps (3.5) to (3.10) of the paper."""
    for layer, (a, first, second) in enumerate(blocks):
        norms = [
            (np.asarray(s.gain), np.asarray(s.bias)) for s in model.constraint(float(layer))
        ]

        def onto_s1(u, gain, bias):
            return bias + gain * layer_norm((u - bias) / gain)

        u2 = onto_s1(u + attention(a, u, causal=False), *norms[0])
        u3 = np.maximum(u2 + linear(first.map, u2), 0)
        u4 = u3 + linear(second.map, u3)
        u = onto_s1((u4 + u2) / 2, *norms[-1])
    return u


def deep_equilibrium(blocks, u, model):
    """The fixed point of `z ↦ f + (Attn(z, f) + FF(z)) / λ`, by iteration."""
    ((a, f, relaxation),) = blocks
    rate, source, z = np.asarray(relaxation.rate), u, u
    shift = source @ np.asarray(a.source_map.weight)
    for _ in range(200):
        attended = attention(a.attention, norm(a.attention, z), causal=False, shift=shift)
        z = source + (attended + feed(f, z)) / rate
    return z


PUBLISHED = {
    "transformer_prenorm": transformer_prenorm,
    "transformer_postnorm": transformer_postnorm,
    "parallel_block": parallel_block,
    "macaron": macaron,
    "ode_transformer_rk2": ode_transformer_rk2,
    "ode_transformer_rk4": ode_transformer_rk4,
    "n_ode": n_ode,
    "diffeqformer": diffeqformer,
    "yuriiformer": yuriiformer,
    "sympformer": sympformer,
    "ot_transformer": ot_transformer,
    "looped": transformer_postnorm,
    "deep_equilibrium": deep_equilibrium,
    "reversible_leapfrog": reversible_leapfrog,
    "paper_encoder": paper_encoder,
    "layer_norm_scaling": layer_norm_scaling,
    "bidirectional": bidirectional,
    "dense_former": dense_former,
    "attention_residual": attention_residual,
    "hyper_connections": hyper_connections,
    "doubly_stochastic_connections": doubly_stochastic_connections,
}
