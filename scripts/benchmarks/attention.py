"""The cost of attention."""

import argparse
import functools as ft
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ide_transformer.equation import TokenDomain, Volterra, integrate

from .shared.command import Command
from .shared.handwritten import dense
from .shared.timing import Rounds, Rows, measured


# Beyond this the scores of the dense form alone would take gibibytes.
_DENSE_UP_TO = 4096


def attention(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """The causal token integral and its gradient, in its forms: dense and written out by hand,
    by JAX, and `integrate`, which is alone where there are many tokens. Rows of `measured` with
    `tokens`."""
    rows = []
    for tokens in options.tokens:
        domain = TokenDomain.uniform(tokens)
        size = (options.batch, tokens, options.heads, options.width // options.heads)
        keys = jax.random.split(jax.random.key(0), 4)
        inputs = tuple(jax.random.normal(key, size) for key in keys)

        def ours(query: Array, key: Array, value: Array, domain=domain) -> Array:
            return integrate(query, key, value, domain, domain, Volterra())

        by_jax = ft.partial(jax.nn.dot_product_attention, is_causal=True)
        forms = {"dense, by hand": dense, "jax.nn": by_jax, "integrate": ours}
        if tokens > _DENSE_UP_TO:
            forms = {"integrate": ours}
        programs = {name: (_gradient(form), inputs) for name, form in forms.items()}
        rows += measured(programs, rounds, tokens=tokens)
    return rows


def _gradient(form: Callable) -> Callable:
    def loss(query: Array, key: Array, value: Array, weights: Array) -> Array:
        return jnp.sum(form(query, key, value) * weights)

    return jax.value_and_grad(loss, argnums=(0, 1, 2))


COMMAND = Command(
    name="attention",
    example="--tokens 1024 --batch 8 --json attention.json",
    rounds=10,
    measure=attention,
    options=dict(tokens=[256, 1024], batch=8, width=256, heads=4),
)
