"""The published architectures whose layers are connected by learned weights, in NumPy."""

import numpy as np
from published.numpy_blocks import block_residual, layer_norm, oracles


def dense_former(blocks, u, model):
    """A depth-weighted average after each block."""
    sizes = np.cumsum(np.arange(2, len(blocks) + 1))
    x = [u]
    for block, alpha in zip(
        blocks, np.split(np.asarray(model.solver.weights), sizes), strict=True
    ):
        x.append(u + block_residual(block, u))
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
            np.asarray(x)[place]
            for x in (
                *(solver.alpha, solver.beta, solver.alpha_weight, solver.beta_weight),
                *(solver.alpha_scale, solver.beta_scale),
            )
        )
        normal = layer_norm(h)
        mixed = np.swapaxes(alpha + s_alpha * np.tanh(normal @ w_alpha), -1, -2) @ h
        depth = beta + s_beta * np.tanh(normal @ w_beta)
        h = mixed[:, 1:] + depth[..., None] * oracle(mixed[:, 0])[:, None]
    return h.mean(-2)


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
        pre, post, res = (
            s * z + b
            for s, z, b in zip(
                scale,
                np.split(logits, (n, 2 * n), axis=-1),
                np.split(bias, (n, 2 * n)),
                strict=True,
            )
        )
        matrix = np.exp(res.reshape(tokens, n, n))
        for _ in range(20):
            matrix = matrix / matrix.sum(1, keepdims=True)
            matrix = matrix / matrix.sum(2, keepdims=True)
        read, write = 1 / (1 + np.exp(-pre)), 2 / (1 + np.exp(-post))
        out = oracle(np.einsum("tn,tnd->td", read, x))
        x = matrix @ x + write[..., None] * out[:, None]
    return x.mean(-2)
