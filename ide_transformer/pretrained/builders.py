"""Parts of models, for the builders of families. Their weights have any value: a checkpoint
replaces them. Nothing is computed when this file is imported."""

from collections.abc import Callable, Set
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from ..equation import AbstractOperator, Free, LayerNorm, Linear, PiecewiseConstant, RMSNorm
from ..models import Discretization
from ..solvers import LieTrotter


MakeOperator = Callable[..., AbstractOperator]


def any_key() -> PRNGKeyArray:
    """A key for weights of any value."""
    return jax.random.key(0)


def layer_norm(features: int, eps: float) -> LayerNorm:
    return LayerNorm(jnp.ones(features), jnp.zeros(features), eps=eps)


def rms_norm(features: int, eps: float) -> RMSNorm:
    return RMSNorm(jnp.ones(features), eps=eps)


def dense(features_in: int, features_out: int) -> Linear:
    return Linear(features_in, features_out, bias=True, std=0.02, key=any_key())


def block_maker(*operators: MakeOperator) -> Callable[[PRNGKeyArray], PyTree]:
    """Makes a block of operators, each of which is made by `make(key=…)`."""

    def make_block(key: PRNGKeyArray) -> tuple[AbstractOperator, ...]:
        keys = jax.random.split(key, len(operators))
        return tuple(make(key=one) for make, one in zip(operators, keys, strict=True))

    return make_block


def pre_norm(number: int, *operators: MakeOperator, parallel: bool = False) -> dict[str, Any]:
    """The equation of a pre-norm model: operators that normalise their own input, no
    constraint. Its scheme is Lie–Trotter with Euler sub-steps, or unsplit Euler for parallel
    blocks.

    **Arguments:**

    - `number`: how many layers.
    - `operators`: makers of the operators of a layer, called with `key=…`.
    """
    return dict(
        control=PiecewiseConstant.build(block_maker(*operators), number, key=any_key()),
        constraint=Free(),
        discretization=Discretization(
            diffrax.Euler() if parallel else LieTrotter(diffrax.Euler())
        ),
    )


def has(names: Set[str], name: str) -> bool:
    """Whether a checkpoint has tensors below that name."""
    return any(known == name or known.startswith(f"{name}.") for known in names)
