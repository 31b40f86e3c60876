"""The published architectures of configs/schemes/, written out in NumPy: from the blocks of a
model and the state at depth 0, and where they need them the inputs, to the state at depth T."""

import equinox as eqx
import jax
import numpy as np
import scipy.integrate

from tests.published.numpy_blocks import (
    after_block,
    attention,
    feed_forward,
    layer_norm,
    linear,
    norm,
    oracles,
    rate,
)


def transformer_prenorm(blocks, u, model):
    for block in blocks:
        u = after_block(block, u)
    return u


def transformer_postnorm(blocks, u, model):
    for layer, (a, f) in enumerate(blocks):
        first, second = model.constraint(float(layer))
        u = layer_norm(u + attention(a, u), np.asarray(first.gain))
        u = layer_norm(u + feed_forward(f, u), np.asarray(second.gain))
    return u


def parallel_block(blocks, u, model):
    for block in blocks:
        u = u + sum(rate(operator)(u) for operator in block)
    return u


def macaron(blocks, u, model):
    for f, a in blocks:
        u = u + 0.5 * rate(f)(u)
        u = u + rate(a)(u)
        u = u + 0.5 * rate(f)(u)
    return u


def ode_transformer_rk2(blocks, u, model):
    weight, bias = (
        np.asarray(x) for x in (model.solver.solver.weight, model.solver.solver.bias)
    )
    for block in blocks:
        first = after_block(block, u) - u
        second = after_block(block, u + first) - u - first
        rates = np.concatenate([first, second], axis=-1)
        gate = 1 / (1 + np.exp(-(rates @ weight + bias)))[:, None]
        u = u + gate * first + (1 - gate) * second
    return u


def ode_transformer_rk4(blocks, u, model):
    for block in blocks:
        k = [after_block(block, u) - u]
        for c in (0.5, 0.5, 1):
            stage = u + c * k[-1]
            k.append(after_block(block, stage) - stage)
        u = u + (k[0] + 2 * k[1] + 2 * k[2] + k[3]) / 6
    return u


def n_ode(blocks, u, model):
    """A step of length one in each layer, by Dormand and Prince's method of order five; without
    layer norms, on all tokens."""
    method = scipy.integrate.RK45
    for attend, feed in blocks:
        k = []
        for row in (*method.A, method.B):
            stage = u + sum(a * x for a, x in zip(row, k, strict=False))
            after = stage + attention(attend, stage, causal=False)
            k.append(after + feed_forward(feed, after) - stage)
        u = stage
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
        u = parallel_block([block], u, model)
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


def ot_transformer(blocks, u, model):
    for block in blocks:
        u = u + after_block(block, u) / 4
    return u


def reversible_leapfrog(blocks, u, model):
    before, u = u, after_block(blocks[0], u)
    for block in blocks[1:]:
        before, u = u, before + 2 * (after_block(block, u) - u)
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
        u = onto_s1((u3 + linear(second.map, u3) + u2) / 2, *norms[-1])
    return u


def deep_equilibrium(blocks, u, model):
    """The fixed point of `z ↦ f + (Attn(z, f) + FF(z)) / λ`, by iteration."""
    ((a, f, relaxation),) = blocks
    strength, source, z = np.asarray(relaxation.rate), u, u
    shift = source @ np.asarray(a.source_map.weight)
    for _ in range(200):
        attended = attention(a.attention, norm(a.attention, z), causal=False, shift=shift)
        z = source + (attended + rate(f)(z)) / strength
    return z


def dense_former(blocks, u, model):
    """A depth-weighted average after each block."""
    sizes = np.cumsum(np.arange(2, len(blocks) + 1))
    x = [u]
    for block, alpha in zip(
        blocks, np.split(np.asarray(model.solver.weights), sizes), strict=True
    ):
        x.append(after_block(block, u))
        u = sum(a * each for a, each in zip(alpha, x, strict=True))
    return u


def attention_residual(blocks, u, model):
    values = [u]
    for place, oracle in oracles(blocks):
        values.append(oracle(u))
        keys = [v / np.sqrt((v**2).mean(-1, keepdims=True) + 1e-6) for v in values]
        query = np.asarray(model.solver.queries)[place]
        weights = np.exp([key @ query for key in keys])
        weights /= weights.sum(0)
        u = sum(w[:, None] * v for w, v in zip(weights, values, strict=True))
    return u


def hyper_connections(blocks, u, model):
    """Algorithm 2 of the paper, with layer norms without gain: matrices [tokens, n, 1 + n]
    take the streams to what the operator sees and what is kept."""
    solver = model.solver
    h = np.stack([u] * solver.streams, axis=-2)
    for place, oracle in oracles(blocks):
        alpha, beta, w_alpha, w_beta, s_alpha, s_beta = (
            np.asarray(getattr(solver, name))[place]
            for part in ("", "_weight", "_scale")
            for name in ("alpha" + part, "beta" + part)
        )
        normal = layer_norm(h)
        mixed = np.swapaxes(alpha + s_alpha * np.tanh(normal @ w_alpha), -1, -2) @ h
        depth = beta + s_beta * np.tanh(normal @ w_beta)
        h = mixed[:, 1:] + depth[..., None] * oracle(mixed[:, 0])[:, None]
    return h.mean(-2)


def scaled_to_sum_1(logits):
    """Twenty sweeps of Sinkhorn and Knopp."""
    matrix = np.exp(logits)
    for _ in range(20):
        matrix = matrix / matrix.sum(-2, keepdims=True)
        matrix = matrix / matrix.sum(-1, keepdims=True)
    return matrix


def doubly_stochastic_connections(blocks, u, model):
    solver = model.solver
    n, tokens = solver.streams, len(u)
    x = np.stack([u] * n, axis=-2)
    for place, oracle in oracles(blocks):
        bias, weight, scale = (
            np.asarray(w)[place] for w in (solver.bias, solver.weight, solver.scale)
        )
        flat = x.reshape(tokens, -1)
        logits = flat / np.sqrt((flat**2).mean(-1, keepdims=True) + 1e-6) @ weight
        scales = np.repeat(scale, (n, n, n * n))
        pre, post, res = np.split(scales * logits + bias, (n, 2 * n), axis=-1)
        matrix = scaled_to_sum_1(res.reshape(tokens, n, n))
        read, write = 1 / (1 + np.exp(-pre)), 2 / (1 + np.exp(-post))
        out = oracle(np.einsum("tn,tnd->td", read, x))
        x = matrix @ x + write[..., None] * out[:, None]
    return x.mean(-2)


PUBLISHED = {
    function.__name__: function
    for function in (
        *(transformer_prenorm, transformer_postnorm, parallel_block, macaron),
        *(ode_transformer_rk2, ode_transformer_rk4, n_ode, diffeqformer),
        *(yuriiformer, sympformer, layer_norm_scaling, ot_transformer, reversible_leapfrog),
        *(paper_encoder, deep_equilibrium, dense_former, attention_residual),
        *(hyper_connections, doubly_stochastic_connections),
    )
}
PUBLISHED["looped"] = transformer_postnorm
# As it evaluates: γ = 0, the mean of those that are drawn in training.
PUBLISHED["bidirectional"] = transformer_prenorm
