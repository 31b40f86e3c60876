# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportIncompatibleVariableOverride=false
# The first four speak of members that JAX, equinox and diffrax leave partially typed, the last
# of the abstract variables of equinox. Calls, returns and parameters are checked in full.
"""The public face as a user writes it. Pyright reads this file strictly, a test runs it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

import ide_transformer as ide
from ide_transformer.tasks import Part


class Pull(ide.AbstractOperator):
    """`u_t = -rate ⊙ u`."""

    rate: Array
    pointwise: ClassVar[bool] = True

    def __init__(self, features: int):
        self.rate = jnp.full(features, 0.1)

    def __call__(self, u: Array, domain: ide.TokenDomain) -> Array:
        return -u * jnp.broadcast_to(self.rate, u.shape)


class Ball(ide.AbstractConstraint):
    """Tokens of a root mean square of at most `radius`."""

    radius: float = eqx.field(static=True, default=1.0)

    def project(self, u: Array) -> Array:
        size = jnp.sqrt(jnp.mean(u * u, axis=-1, keepdims=True) + 1e-12)
        return u * jnp.minimum(1.0, self.radius / size)

    def tangent(self, u: Array, du: Array) -> Array:
        return jax.jvp(self.project, (u,), (du,))[1]

    def residual(self, u: Array) -> Array:
        return jnp.maximum(jnp.sqrt(jnp.mean(u * u, axis=-1)) - self.radius, 0.0)


class MyHeun(ide.AbstractOneStep):
    """Heun's method; with another weight of the second stage, Ralston's."""

    second: float = eqx.field(static=True, default=1.0)

    def order(self, terms: Any) -> int:
        return 2

    def advance(self, field: ide.solvers.StepField, u: Array) -> Array:
        first = field(0, u)
        second = field(self.second, u + self.second * first)
        return u + first + (second - first) * (0.5 / self.second)


class Counting(ide.AbstractTask):
    """Predict the next of the digits 0, 1, …, `top`, 0, 1, …"""

    model: ClassVar[Callable[..., ide.Model[Any, Any]]] = ide.LanguageModel
    causal: ClassVar[bool] = True

    def __init__(self, context: int, *, top: int = 4):
        self.context, self.top = context, top

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": self.top + 1}

    @property
    def tokens_per_sample(self) -> int:
        return self.context

    def batch(self, step: int, size: int, seed: int) -> ide.Batch:
        first = np.random.default_rng([seed, step]).integers(0, 5, (size, 1))
        text = (first + np.arange(self.context + 1)) % (self.top + 1)
        return ide.Batch(text[:, :-1], text[:, 1:])

    def held_out(
        self, size: int, samples: int | None = None, part: Part = "validation"
    ) -> Iterator[ide.Batch]:
        batch = self.batch(self.parts.index(part), samples or 32, 1)
        for first in range(0, samples or 32, size):
            rows = slice(first, first + size)
            yield ide.Batch(batch.inputs[rows], batch.targets[rows])


def make_block(key: PRNGKeyArray) -> tuple[ide.AbstractOperator, ...]:
    first, second = jax.random.split(key)
    norm = ide.LayerNorm()
    attention = ide.Attention(8, heads=2, causal=True, normalization=norm, key=first)
    return attention, ide.FeedForward(8, 16, normalization=norm, key=second)


def solve_and_differentiate(gradient: ide.AbstractGradient) -> ide.Tied:
    """The gradient of a loss, on a constraint."""
    domain = ide.TokenDomain.uniform(4)
    control = ide.Tied((Pull(8), ide.Damping(0.2)), 2)
    u0: Float[Array, "2 4 8"] = jax.random.normal(jax.random.key(1), (2, 4, 8))
    scheme: diffrax.AbstractSolver[Any] = ide.Strang(MyHeun())

    def loss(control: ide.Tied) -> Array:
        equation = ide.Equation(control, Ball(radius=0.5), domain)
        return jnp.sum(ide.solve(equation, u0, solver=scheme, gradient=gradient).u1 ** 2)

    equation = ide.Equation(control, ide.Free(), domain)
    dense = diffrax.SaveAt(dense=True)
    solution = ide.solve(equation, u0, solver=scheme, steps_per_interval=2, saveat=dense)
    state: Array = solution.evaluate(0.5)
    assert state.shape == solution.u1.shape == u0.shape
    return eqx.filter_grad(loss)(control)


def use_a_model() -> None:
    model: ide.Model[ide.models.TextInputs, ide.models.TokenLogits] = ide.LanguageModel(
        *(5, 8, 8),
        control=ide.Chebyshev.build(make_block, 2, terms=2, key=jax.random.key(2)),
        constraint=ide.Free(),
        solver=ide.LieTrotter(),
        key=jax.random.key(3),
    ).with_gradient(ide.Recursive())
    tokens = jnp.arange(5)[None]
    finer = model.with_solver(ide.Strang()).on(ide.Mesh(steps=2))
    assert model(tokens).shape == finer(tokens).shape == (1, 5, 5)
    text = ide.generate(model, tokens, 3, key=jax.random.key(0), temperature=0.8, top_k=2)
    assert text.shape == (1, 8)


def load_and_save(checkpoint: Path, folder: Path) -> None:
    model = ide.load_pretrained(checkpoint)
    ide.save_pretrained(model, folder, like=checkpoint)
    assert ide.load_pretrained(folder, dtype=jnp.float32).features == model.features


def main(checkpoint: Path, folder: Path) -> None:
    solve_and_differentiate(ide.Recompute())
    use_a_model()
    load_and_save(checkpoint, folder)
    assert Counting(3).batch(0, 2, 0).inputs.shape == (2, 3)
