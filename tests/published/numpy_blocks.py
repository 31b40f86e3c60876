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


def attention(operator, v, causal=True, shift=0.0):
    """Multi-head attention of a normalised input [tokens, features]; `shift` is added to
    queries, keys and values, end to end."""
    heads, tokens = operator.heads, len(v)
    projections = (operator.query, operator.key, operator.value)
    joined = np.concatenate([linear(x, v) for x in projections], axis=-1) + shift
    q, k, value = (
        x.reshape(tokens, heads, -1).transpose(1, 0, 2) for x in np.split(joined, 3, axis=-1)
    )
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
    mixed = (softmax(scores) @ value).transpose(1, 0, 2).reshape(tokens, -1)
    return linear(operator.output, mixed)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def feed_forward(operator, v):
    return linear(operator.outer, gelu(linear(operator.inner, v)))


def norm(operator, u):
    """The input normalisation of an operator."""
    return layer_norm(u, np.asarray(operator.normalization.gain))


def rate(operator):
    """The rate of a pre-norm operator, as a function; one of NumPy stays as it is."""
    if inspect.isfunction(operator):
        return operator
    inner = attention if hasattr(operator, "query") else feed_forward
    return lambda u: inner(operator, norm(operator, u))


def after_block(block, u):
    """The sequential block."""
    for operator in block:
        u = u + rate(operator)(u)
    return u


def oracles(blocks):
    """The place (layer, operator) and the rate of each sub-layer, in order."""
    for layer, block in enumerate(blocks):
        for index, operator in enumerate(block):
            yield (layer, index), rate(operator)
