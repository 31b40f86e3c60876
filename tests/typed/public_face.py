# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportIncompatibleVariableOverride=false
# The first four speak of members that JAX, equinox and diffrax leave partially typed. The last
# has no word for the abstract variables of equinox, which are fields, class variables or
# properties in a subclass. Calls, returns, methods and parameters are checked in full.
"""The public face as a user writes it. Pyright reads this file strictly, a test runs it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

import ide_transformer as ide
from ide_transformer.tasks import Part
from ide_transformer.training import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    SolverConfig,
    TrainingConfig,
)


# The argument is the type of what a scheme carries from step to step.
Scheme: TypeAlias = diffrax.AbstractSolver[Any]


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


class Growing(ide.AbstractControl):
    """`θ(t) = (t/T) θ`."""

    block: tuple[ide.AbstractOperator, ...]
    num_intervals: int = eqx.field(static=True)
    interval_length: float = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 0

    def intervals(self) -> Array:
        return jnp.arange(self.num_intervals, dtype=float)

    def local(
        self, interval: Array, s: float | Array | np.ndarray
    ) -> tuple[ide.AbstractOperator, ...]:
        factor = (interval + s) / self.num_intervals
        return jax.tree.map(lambda x: x * factor if eqx.is_array(x) else x, self.block)

    def resample(self, num_intervals: int) -> "Growing":
        return Growing(self.block, num_intervals, self.horizon / num_intervals)


class MyHeun(ide.AbstractOneStep):
    """Heun's method."""

    def order(self, terms: Any) -> int:
        return 2

    def advance(self, field: ide.StepField, u: Array) -> Array:
        first = field(0, u)
        return u + 0.5 * (first + field(1, u + first))


class Counting(ide.AbstractTask):
    """Predict the next digit of `012340123…`."""

    model: ClassVar[Callable[..., ide.Model[Any, Any]]] = ide.LanguageModel
    causal: ClassVar[bool] = True

    def __init__(self, context: int):
        self.context = context

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": 5}

    @property
    def tokens_per_sample(self) -> int:
        return self.context

    def batch(self, step: int, size: int, seed: int) -> ide.Batch:
        first = np.random.default_rng([seed, step]).integers(0, 5, (size, 1))
        text = (first + np.arange(self.context + 1)) % 5
        return ide.Batch(text[:, :-1], text[:, 1:])

    def held_out(
        self, size: int, samples: int | None = None, part: Part = "validation"
    ) -> Iterator[ide.Batch]:
        yield self.batch(self.parts.index(part), min(size, samples or size), 1)


def make_block(key: PRNGKeyArray) -> tuple[ide.AbstractOperator, ...]:
    first, second = jax.random.split(key)
    norm = ide.LayerNorm()
    attention = ide.Attention(8, heads=2, causal=True, normalization=norm, key=first)
    return attention, ide.FeedForward(8, 16, normalization=norm, key=second)


def solve_in_many_ways() -> None:
    control = ide.PiecewiseConstant.build(make_block, 2, key=jax.random.key(0))
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(4))
    u0: Float[Array, "2 4 8"] = jax.random.normal(jax.random.key(1), (2, 4, 8))
    dense = diffrax.SaveAt(dense=True)
    solution = ide.solve(
        equation, u0, solver=ide.Strang(MyHeun()), steps_per_interval=2, saveat=dense
    )
    state: Array = solution.evaluate(0.5)
    adaptive = ide.solve(
        equation,
        u0,
        solver=diffrax.Tsit5(),
        stepsize_controller=diffrax.PIDController(rtol=1e-2, atol=1e-2),
        saveat=diffrax.SaveAt(ts=equation.knots.tolist()),
        throw=False,
    )
    assert state.shape == solution.u1.shape == u0.shape
    assert bool(adaptive.succeeded) and adaptive.us.shape == (3, 2, 4, 8)


def differentiate() -> list[Growing]:
    """The gradient of a loss by every mode, on a constraint."""
    modes: list[tuple[ide.AbstractGradient, Scheme]] = [
        (ide.Recompute(), ide.projected(diffrax.Heun())),
        (ide.Direct(), ide.LieTrotter(diffrax.Euler())),
        (ide.Recursive(levels=2), ide.LieTrotter()),
        (ide.Reversible(), ide.AlgebraicallyReversible(ide.LieTrotter())),
    ]
    control = Growing((Pull(8), ide.Damping(0.2)), 2)

    def loss(control: Growing, mode: ide.AbstractGradient, solver: Scheme) -> Array:
        constraint = ide.Free() if isinstance(mode, ide.Reversible) else Ball(radius=0.5)
        equation = ide.Equation(control, constraint, ide.TokenDomain.uniform(4))
        u0 = jnp.full((4, 8), 0.4)
        return jnp.sum(ide.solve(equation, u0, solver=solver, gradient=mode).u1 ** 2)

    return [eqx.filter_grad(loss)(control, mode, solver) for mode, solver in modes]


def make_model() -> ide.Model[ide.TextInputs, ide.TokenLogits]:
    return ide.LanguageModel(
        5,
        8,
        8,
        control=ide.Chebyshev.build(make_block, 2, terms=2, key=jax.random.key(2)),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter(), gradient=ide.Recursive()),
        key=jax.random.key(3),
    )


def use_a_model() -> None:
    model, tokens = make_model(), jnp.arange(5)[None]
    finer = model.with_solver(ide.Strang(), steps_per_interval=2)
    assert model(tokens).shape == finer(tokens).shape == (1, 5, 5)
    text = ide.generate(model, tokens, 3, key=jax.random.key(0), temperature=0.8, top_k=2)
    assert text.shape == (1, 8)
    reason: str | None = ide.why_not_cached(model)
    assert reason is None


def load_and_save(checkpoint: Path, folder: Path) -> None:
    model = ide.load_pretrained(checkpoint)
    ide.save_pretrained(model, folder, like=checkpoint)
    again = ide.load_pretrained(folder, dtype=jnp.float32)
    assert again.features == model.features
    try:
        ide.load_pretrained(folder / "nothing")
    except ide.InputError as error:
        assert "nothing" in str(error)


def learn(runs: Path, task: str) -> ide.Model[Any, Any]:
    config = Config(
        name="counting",
        data=DataConfig(name=task),
        model=ModelConfig(width=8, heads=2, depth=2, context=8),
        solver=SolverConfig(kind="strang"),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup=1),
        training=TrainingConfig(steps=2, batch_size=2, evaluate_samples=2, sample=0),
    )
    folder = ide.train(config, runs=runs)
    model, run = ide.load_run(folder.path, trust=True)
    assert run.path == folder.path
    return model


def main(checkpoint: Path, folder: Path, task: str) -> None:
    solve_in_many_ways()
    assert len(differentiate()) == 4
    use_a_model()
    load_and_save(checkpoint, folder / "saved")
    assert learn(folder / "runs", task).features == 8
    assert ide.__version__
