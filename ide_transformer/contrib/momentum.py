"""Schemes with momentum: Lie–Trotter over a state and its velocity."""

import abc
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Integer, PRNGKeyArray, PyTree, Real

from ide_transformer.arguments import Bound, Fraction, NonNegativeFloat, PositiveInt, checked
from ide_transformer.equation import (
    AbstractConstraint,
    AbstractControl,
    Depth,
    Free,
    FunctionSpace,
    LayerNorm,
    State,
    operator_fields,
    parts,
    with_fields,
    without_constraint,
)
from ide_transformer.errors import InputError
from ide_transformer.integration import Mesh
from ide_transformer.models import (
    AbstractInputs,
    Embedded,
    LanguageModel,
    Model,
    Text,
    TextInputs,
    TokenLogits,
)
from ide_transformer.solvers import AbstractScheme, LieTrotter, SolvePlan, Step, StepField


# A number, or nested lists of numbers.
Numbers: TypeAlias = Real[ArrayLike, "..."] | list


def _within(holds: Callable, interval: str) -> Bound:
    def fits(value: Numbers) -> bool:
        try:
            numbers = np.asarray(value)
            is_real = numbers.dtype.kind in "fiu"
            has_shape = is_real and numbers.ndim <= 2 and numbers.size > 0
            return has_shape and bool(holds(numbers).all())
        except (TypeError, ValueError):
            return False

    shapes = "a number, a list with one for each operator, or a list of these for each layer"
    return Bound(f"in {interval}: {shapes}", fits)


class AbstractCoefficient(eqx.Module):
    """A learned coefficient: one number `[]`, a number for each operator `[operators]`, or for
    each layer and operator `[layers, operators]`."""

    raw: eqx.AbstractVar[Float[Array, "..."]]

    @property
    @abc.abstractmethod
    def value(self) -> Float[Array, "..."]:
        """The coefficient in its range."""

    def __call__(self, t: Depth, index: int) -> Float[Array, ""]:
        """The value for operator `index` at depth `t`."""
        value = self.value
        if value.ndim == 2:
            layer = jnp.clip(jnp.floor(jnp.asarray(t)), 0, value.shape[0] - 1)
            value = value[layer.astype(int)]
        return value[index] if value.ndim else value


class UnitInterval(AbstractCoefficient):
    """A coefficient in [0, 1): `raw² / (1 + raw²)`. It stays 0 if it starts there."""

    raw: Float[Array, "..."]

    def __init__(
        self, value: Annotated[Numbers, _within(lambda x: (x >= 0) & (x < 1), "[0, 1)")]
    ):
        numbers = np.asarray(value, jnp.result_type(float))
        self.raw = jnp.sqrt(numbers / (1 - numbers))

    @property
    def value(self) -> Float[Array, "..."]:
        return self.raw**2 / (1 + self.raw**2)


class Positive(AbstractCoefficient):
    """A coefficient above 0: `softplus(raw)`."""

    raw: Float[Array, "..."]

    def __init__(
        self, value: Annotated[Numbers, _within(lambda x: (x > 0) & np.isfinite(x), "(0, ∞)")]
    ):
        numbers = np.asarray(value, jnp.result_type(float))
        self.raw = jnp.asarray(numbers) + jnp.log(-jnp.expm1(-numbers))

    @property
    def value(self) -> Float[Array, "..."]:
        return jax.nn.softplus(self.raw)


class Kick(NamedTuple):
    """A sub-step of the velocity, `P(damping v + strength A(u + lookahead v))`, where P is the
    normalization."""

    damping: Array
    strength: Array
    normalization: AbstractConstraint
    lookahead: Depth = 0.0


@checked
class InitialVelocity(eqx.Module):
    """A velocity at depth 0 other than zero, as `args` of a solve."""

    velocity: State


class AbstractMomentum(AbstractScheme):
    """A scheme with a velocity v of the state; for each operator in turn

        v ← P(damping v + strength A_i(u + lookahead v)),   u ← u + h v.

    The velocity starts at zero or at `args=InitialVelocity(…)`. It is the solver state.
    """

    term_structure: ClassVar = diffrax.MultiTerm
    # Its equation is of second order in depth.
    consistent: ClassVar[bool] = False
    fixed_order: ClassVar[int | None] = 1
    starts_from: ClassVar[tuple[type, ...]] = (InitialVelocity,)

    def limit(self) -> diffrax.AbstractSolver:
        return MomentumLimit(self)

    @abc.abstractmethod
    def kick(self, index: int, t0: Depth, t1: Depth) -> Kick:
        """The sub-step of operator `index` over `[t0, t1]`."""

    def check(self, plan: SolvePlan) -> None:
        operators = plan.operators
        # The sum of the interval lengths has rounding errors.
        layers = math.ceil(round(plan.horizon, 6))
        for coefficient in parts(self, AbstractCoefficient):
            shape = coefficient.raw.shape
            if shape not in ((), (operators,), (layers, operators)):
                raise InputError(
                    f"{type(self).__name__}: a coefficient has shape {shape}; for {operators} "
                    f"operators and depth T={plan.horizon:g} it must be (), ({operators},) or "
                    f"({layers}, {operators})."
                )

    def learned(self) -> dict[str, Float[Array, ""]]:
        values = super().learned()
        for name, coefficient in vars(self).items():
            if isinstance(coefficient, AbstractCoefficient):
                values.pop(f"{name}.raw", None)
                values[name] = jnp.mean(coefficient.value)
        return values

    def start(self, field: StepField, u: Array) -> Array:
        field.of_operators(self)
        if not isinstance(field.args, InitialVelocity):
            return jnp.zeros_like(u)
        return jnp.broadcast_to(field.args.velocity.astype(u.dtype), u.shape)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        y1 = u
        v = state
        for index, operator_field in enumerate(field.of_operators(self)):
            kick = self.kick(index, field.t0, field.t1)
            rate = operator_field.rate(0, y1 + kick.lookahead * v)
            v = kick.normalization.project(kick.damping * v + kick.strength * rate)
            y1 = y1 + field.h * v
        return Step.between(u, y1.astype(u.dtype), state=v.astype(u.dtype))


class MomentumLimit(AbstractScheme):
    """Solves the limit of a scheme with momentum for small steps by `Dopri8`,

        u_t = k v,   v_t = -Σ_i r_i(t) v + Σ_i g_i(t) A_i(u),

    for k operators. The kicks of a tiny step determine r and g. On a constraint u moves with
    the tangential part of k v.
    """

    scheme: AbstractMomentum

    term_structure: ClassVar = diffrax.MultiTerm
    fixed_order: ClassVar[int | None] = 8
    configurable: ClassVar[bool] = False

    def projected(self) -> "MomentumLimit":
        return self

    def start(self, field: StepField, u: Array) -> Array:
        return self.scheme.start(field, u)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        raw = without_constraint(field.terms)
        constraint = operator_fields(field.terms)[0].constraint
        operators = len(raw.terms)
        tiny = 1e-7

        def rates(t, state, args):
            u, v = state
            kicks = [self.scheme.kick(i, t, t + tiny) for i in range(operators)]
            drift = constraint(t).tangent(u, operators * v)
            pairs = zip(kicks, raw.terms, strict=True)
            force = sum(kick.strength / tiny * term.vf(t, u, args) for kick, term in pairs)
            friction = sum((1 - kick.damping) / tiny for kick in kicks)
            return drift, force - friction * v

        pair: Any = (u, state)
        limit_field = StepField(diffrax.ODETerm(rates), field.t0, field.t1)
        y1, v1 = cast(tuple[Array, Array], limit_field.first_step(diffrax.Dopri8(), pair).y1)
        return Step.between(u, y1, state=v1)


@checked
class Nesterov(AbstractMomentum):
    """Nesterov's acceleration by Lie–Trotter over a state and its velocity; for each operator
    in turn, at h = 1,

        v ← P(β v + γ A_i(u + μ v)),   u ← u + v.

    β, γ and μ are learned; a β or μ of 0 stays 0. Other steps have `β^h`,
    `γ (1 - β^h)/(1 - β)` and `μ h`. With P = `Free` and k operators this has order one for

        u_t = k v,   v_t = -k r v + γ r/(1 - β) Σ_i A_i(u),   r = -log β.

    Reference: YuriiFormer, arXiv 2601.23236, where P is a layer norm.

    **Arguments:**

    - `momentum`: β in [0, 1), a number, `[operators]` or `[layers, operators]`.
    - `lookahead`: μ in [0, 1), likewise; μ = 0 is Polyak's heavy ball.
    - `gain`: γ > 0, likewise.
    - `normalization`: P.
    """

    momentum: UnitInterval = eqx.field(converter=UnitInterval, default=0.9)
    lookahead: UnitInterval = eqx.field(converter=UnitInterval, default=0.9)
    gain: Positive = eqx.field(converter=Positive, default=1.0)
    normalization: AbstractConstraint = Free()

    def kick(self, index: int, t0: Depth, t1: Depth) -> Kick:
        h = t1 - t0
        middle = t0 + 0.5 * h
        momentum = self.momentum(middle, index)
        # Keeps the derivative of the power finite at β = 0.
        safe = jnp.where(momentum > 0, momentum, 1)
        damping = jnp.where(momentum > 0, safe**h, 0)
        strength = self.gain(middle, index) * (1 - damping) / (1 - momentum)
        return Kick(damping, strength, self.normalization, h * self.lookahead(middle, index))


@checked
class PresymplecticEuler(AbstractMomentum):
    """Presymplectic Euler for a damped Hamiltonian system: kick, damp, then drift; for each
    operator in turn

        v ← P(σ (v + h A_i(u))),   u ← u + h v,   σ = exp(-[η(t + h) - η(t)]),

        η(t) = c_log log(1 + t) + c_lin t,

    where c_log and c_lin are learned. With P = `Free` and k operators this has order one for
    `u_t = k v, v_t = -k η' v + Σ_i A_i(u)`. Reference: SympFormer, arXiv 2603.16535, whose
    kinetic energy also depends on the state; here it is `|v|²/2`.

    **Arguments:**

    - `logarithmic`: c_log > 0, a number, `[operators]` or `[layers, operators]`.
    - `linear`: c_lin > 0, likewise.
    - `normalization`: P.
    """

    logarithmic: Positive = eqx.field(converter=Positive, default=3.0)
    linear: Positive = eqx.field(converter=Positive, default=1e-4)
    normalization: AbstractConstraint = Free()

    def kick(self, index: int, t0: Depth, t1: Depth) -> Kick:
        h = t1 - t0
        middle = t0 + 0.5 * h
        growth = self.logarithmic(middle, index) * (jnp.log1p(t1) - jnp.log1p(t0))
        damping = jnp.exp(-growth - self.linear(middle, index) * h)
        return Kick(damping, damping * h, self.normalization)


@checked
class VelocityInputs(TextInputs):
    """Texts with a second embedding of tokens as their velocity at depth 0, for schemes with
    momentum. Reference: YuriiFormer, arXiv 2601.23236."""

    velocity: Float[Array, "vocabulary embedded"]

    def embed(
        self,
        inputs: Integer[ArrayLike, "*batch tokens"] | Text,
        *,
        key: PRNGKeyArray | None = None,
        start: Int[ArrayLike, ""] = 0,
    ) -> Embedded:
        embedded = super().embed(inputs, key=key, start=start)
        tokens = inputs.tokens if isinstance(inputs, Text) else inputs
        return embedded._replace(start=InitialVelocity(self.velocity[jnp.asarray(tokens)]))

    def at_points(self, space: FunctionSpace) -> AbstractInputs:
        at_points = super().at_points(space)
        return with_fields(at_points, velocity=space.features.of_values(self.velocity))


@checked
def MomentumLanguageModel(
    vocabulary: PositiveInt,
    context: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    learned_positions: bool = True,
    input_normalization: AbstractConstraint = Free(),
    embedding_scale: float = 1.0,
    dropout: Fraction = 0.0,
    std: NonNegativeFloat = 0.02,
    tied: bool = True,
    readout_bias: bool = False,
    output_normalization: AbstractConstraint = LayerNorm(),
) -> Model[VelocityInputs, TokenLogits]:
    """A `LanguageModel` whose velocity starts from a second token embedding, for schemes with
    momentum such as `Nesterov()`.

    **Arguments:** see `LanguageModel`.
    """
    model = LanguageModel(
        vocabulary,
        context,
        features,
        control=control,
        constraint=constraint,
        solver=solver,
        mesh=mesh,
        key=key,
        learned_positions=learned_positions,
        input_normalization=input_normalization,
        embedding_scale=embedding_scale,
        dropout=dropout,
        std=std,
        tied=tied,
        readout_bias=readout_bias,
        output_normalization=output_normalization,
    )
    token_key, _, _ = jax.random.split(key, 3)
    shape = (vocabulary, features)
    velocity = std * jax.random.normal(jax.random.fold_in(token_key, 1), shape)
    tables = {field.name: getattr(model.inputs, field.name) for field in fields(model.inputs)}
    return model.with_inputs(VelocityInputs(**tables, velocity=velocity))
