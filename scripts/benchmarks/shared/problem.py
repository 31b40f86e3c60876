"""The depth problem that the benchmarks of the march solve: a stack of Transformer layers."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ide_transformer.equation import (
    Attention,
    Equation,
    FeedForward,
    Free,
    LayerNorm,
    PiecewiseConstant,
    TokenDomain,
)
from ide_transformer.integration import AbstractGradient, solve


class Shape(NamedTuple):
    """The sizes of a state and of the heads of its attention."""

    batch: int
    context: int
    width: int
    heads: int

    @staticmethod
    def of(options: argparse.Namespace) -> "Shape":
        """The sizes from the options of `add_sizes`."""
        return Shape(options.batch, options.context, options.width, options.heads)

    def state(self) -> Float[Array, "batch tokens features"]:
        """A random state."""
        return jax.random.normal(jax.random.key(1), (self.batch, self.context, self.width))


def add_sizes(
    parser: argparse.ArgumentParser, *, depth: list[int], batch: int, context: int
) -> None:
    """Adds the sizes of a `Shape`, and the numbers of layers."""
    parser.add_argument("--depth", type=int, nargs="+", default=depth)
    for name, size in dict(batch=batch, context=context, width=128, heads=4).items():
        parser.add_argument(f"--{name}", type=int, default=size)


def build_layers(depth: int, shape: Shape, normalization: str = "pre-norm") -> Equation:
    """An equation of `depth` layers without biases. Operators normalise their input (pre-norm,
    GPT-2), or the state stays on the set of normalised states (post-norm, BERT)."""
    norm, constraint = LayerNorm(jnp.ones(shape.width)), Free()
    if normalization == "post-norm":
        norm, constraint = constraint, norm
    options: Any = dict(normalization=norm, bias=False)

    def block(key: PRNGKeyArray):
        first, second = jax.random.split(key)
        attention = Attention(shape.width, shape.heads, key=first, causal=True, **options)
        return attention, FeedForward(shape.width, key=second, **options)

    control = PiecewiseConstant.build(block, depth, key=jax.random.key(0))
    return Equation(control, constraint, TokenDomain.uniform(shape.context))


def gradient_of_solve(
    equation: Equation,
    solver: diffrax.AbstractSolver,
    gradient: AbstractGradient,
    u0: Float[Array, "batch tokens features"],
) -> tuple[Callable, tuple]:
    """`gradient_of` the state that `solve` returns, for the weights of an equation."""

    def u1(weights: tuple[Any, Any], u0: Array) -> Array:
        weighted = Equation(*weights, equation.domain)
        return solve(weighted, u0, solver=solver, gradient=gradient, throw=False).u1

    return gradient_of(u1, (equation.control, equation.constraint), u0)


def gradient_of(u1: Callable, weights: Any, u0: Array) -> tuple[Callable, tuple]:
    """A program for the loss `mean u1²` of a state `u1(weights, u0)` and its gradient with
    respect to both, and the arguments of the program."""

    def loss(weights: Any, u0: Array) -> Array:
        return jnp.mean(u1(weights, u0) ** 2)

    return jax.value_and_grad(loss, argnums=(0, 1)), (weights, u0)
