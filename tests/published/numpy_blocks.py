"""The operators of Transformers written out in NumPy, with nothing of the package but the
weights."""

import inspect
from math import erf

import numpy as np


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(u, gain=1.0, bias=0.0, eps=1e-5):
    u = np.asarray(u)
    mean = u.mean(-1, keepdims=True)
    return gain * (u - mean) / np.sqrt(u.var(-1, keepdims=True) + eps) + bias


def linear(weights, v):
    bias = 0.0 if weights.bias is None else np.asarray(weights.bias)
    return v @ np.asarray(weights.weight) + bias


def softmax_kernel(query, key):
    return np.exp(query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1]))


def attended(operator, u, f, g, weights, kernel, shifts=(0.0, 0.0, 0.0)):
    """Attention of queries made of u, keys of f and values of g, to each of which a shift is
    added."""
    parts = (operator.query, u), (operator.key, f), (operator.value, g)
    query, key, value = (
        (linear(x, v) + shift).reshape(len(v), operator.heads, -1).swapaxes(0, 1)
        for (x, v), shift in zip(parts, shifts, strict=True)
    )
    gamma = kernel(query, key) * weights
    mixed = gamma / gamma.sum(-1, keepdims=True) @ value
    return linear(operator.output, mixed.swapaxes(0, 1).reshape(len(u), -1))


def attention(operator, v, causal=True, shift=None):
    """Attention of a normalised input [tokens, features] to itself; `shift` is added to its
    queries, keys and values, end to end."""
    weights, shifts = np.tri(len(v)) if causal else 1.0, (0.0, 0.0, 0.0)
    shifts = shifts if shift is None else np.split(shift, 3, axis=-1)
    return attended(operator, v, v, v, weights, softmax_kernel, shifts)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def feed_forward(operator, v):
    return linear(operator.outer, gelu(linear(operator.inner, v)))


def norm(operator, u):
    return layer_norm(u, np.asarray(operator.normalization.gain))


def rate(operator):
    """The rate of a pre-norm operator, as a function; one of NumPy stays as it is."""
    if inspect.isfunction(operator):
        return operator
    inner = attention if hasattr(operator, "query") else feed_forward
    return lambda u: inner(operator, norm(operator, u))


def after_block(block, u):
    for operator in block:
        u = u + rate(operator)(u)
    return u


def oracles(blocks):
    """The place (layer, operator) and the rate of each sub-layer, in order."""
    for layer, block in enumerate(blocks):
        for index, operator in enumerate(block):
            yield (layer, index), rate(operator)
