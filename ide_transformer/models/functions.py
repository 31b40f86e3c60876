"""Functions at points as inputs."""

import functools as ft
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from ..arguments import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
    checked,
    is_known,
)
from ..equation import (
    PLAIN,
    AbstractConstraint,
    Free,
    FunctionSpace,
    LayerNorm,
    Linear,
    PointRule,
    State,
    TokenDomain,
    drop,
    with_fields,
)
from ..errors import InputError
from .model import Model
from .parts import AbstractInputs, AbstractReadOut, Embedded


class Field(NamedTuple):
    """Values of functions at the points of a domain.

    - `values`: `[..., tokens]`, or `[..., tokens, channels]`.
    - `domain`: the points, and their weights in integrals; all samples have the same points.
    """

    values: Float[Array | np.ndarray, "..."]
    domain: TokenDomain

    @classmethod
    @checked
    def at(
        cls,
        values: Float[Array | np.ndarray, "..."],
        points: Float[Array | np.ndarray, "tokens *dimension"],
        *,
        periodic: bool = False,
    ) -> "Field":
        """Functions at points of [0, 1] or the unit square, `[tokens]` or `[tokens, 2]`, each
        weighted by the part that is nearest to it; `periodic` for the circle or the torus."""
        points = np.asarray(points)
        dimension = 1 if points.ndim == 1 else points.shape[-1]
        period = (1.0,) * dimension if periodic else None
        domain = TokenDomain.from_points(points, ((0.0, 1.0),) * dimension, period)
        return cls(np.asarray(values), domain)


@checked
class FunctionInputs(AbstractInputs):
    """Functions on the circle or on the interval [0, 1], or on the product of several of them:
    tokens are points x with quadrature weights.

        u(x, 0) = N(W [a(x), cos 2πk x_i / L_i, sin 2πk x_i / L_i] + b),

    with the waves k = 1, …, modes along each axis i, L_i = 1 around a circle and 2 along an
    interval. a is `[..., tokens]` on a line, `[..., rows, columns]` in the plane, and so on,
    with a last axis of channels where `channels` is given, at the points of `grid`; or a
    `Field` with points of its own, in any dimension. Outputs have the same shape.

    The waves let the model be evaluated on any points; fewer than `2 modes + 1` along an axis
    cannot tell them apart. Products of waves of several axes are left to the feed-forward.

    **Arguments:**

    - `points`: the number of points on which it is trained, or that along each axis.
    - `embedding`: W and b.
    - `channels`: values at each point, on an axis of their own; `None` for one value
      without it.
    - `modes`: the waves of each coordinate; with 0 the embedding does not see where it is, so
      that on a circle outputs move with the inputs.
    - `grid`: the points of values that come alone: "periodic", `j / tokens` on the circle, or
      "midpoint", "gauss_legendre" or "clenshaw_curtis" on the interval, see `TokenDomain`; one
      for all axes, or one for each.
    - `wavelength`: L, the longest wave of the positions; `None` for those above. 2 on a
      "periodic" grid for functions that do not meet at the ends.
    - `normalization`, `dropout`: N, and the rate on what it is applied to.
    - `fields`: whether each input has to be a `Field`, since the training has other
      points than `grid`.

    **Raises:** `InputError` when called, for values without their points, and for points
    outside of [0, 1] along an axis that is no circle; where a compiled program is given these,
    the outputs are not a number.
    """

    points: PositiveInt | tuple[PositiveInt, ...] = eqx.field(static=True)
    embedding: Linear
    _: KW_ONLY
    channels: PositiveInt | None = eqx.field(static=True, default=None)
    modes: NonNegativeInt = eqx.field(static=True, default=8)
    grid: PointRule | tuple[PointRule, ...] = eqx.field(static=True, default="periodic")
    wavelength: PositiveFloat | None = eqx.field(static=True, default=None)
    normalization: AbstractConstraint = Free()
    dropout: Fraction = eqx.field(static=True, default=0.0)
    fields: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if not self.dimension or len(self._axes) != self.dimension:
            raise InputError(
                f"FunctionInputs: grid={self.grid} for points={self.points}; give one rule for "
                "all axes, or one for each."
            )

    @classmethod
    @checked
    def build(
        cls,
        points: PositiveInt | tuple[PositiveInt, ...],
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        channels: PositiveInt | None = None,
        modes: NonNegativeInt = 8,
        std: NonNegativeFloat = 0.02,
        **options: Any,
    ) -> "FunctionInputs":
        """Draw W, whose entries have the standard deviation `std`. For the other arguments see
        the class."""
        dimension = len(points) if isinstance(points, tuple) else 1
        numbers = (channels or 1) + 2 * modes * dimension
        embedding = Linear(numbers, features, std=std, key=key)
        return cls(points, embedding, channels=channels, modes=modes, **options)

    @property
    def features(self) -> int:
        return self.embedding.weight.shape[1]

    @property
    def dimension(self) -> int:
        """Dimension of the points."""
        return len(self.points) if isinstance(self.points, tuple) else 1

    @property
    def domain(self) -> TokenDomain:
        return self.points_of(self.points)

    def points_of(self, tokens: int | tuple[int, ...]) -> TokenDomain:
        """The points of values that come alone; `tokens` has a number for each axis."""
        shape = tokens if isinstance(tokens, tuple) else (tokens,)
        if len(shape) != self.dimension:
            raise InputError(
                f"FunctionInputs: points={tokens} for a model of functions in dimension "
                f"{self.dimension}; give a number for each axis."
            )
        axes = zip(self._axes, shape, strict=True)
        return ft.reduce(
            TokenDomain.product, (getattr(TokenDomain, rule)(n) for (rule, _), n in axes)
        )

    @property
    def _axes(self) -> list[tuple[PointRule, float]]:
        """The rule of the points along each axis, and L."""
        rules = self.grid if isinstance(self.grid, tuple) else (self.grid,) * self.dimension
        return [(x, self.wavelength or (1.0 if x == "periodic" else 2.0)) for x in rules]

    def at_points(self, space: FunctionSpace) -> "FunctionInputs":
        return with_fields(
            self,
            embedding=self.embedding.at_points(PLAIN, space.features),
            normalization=self.normalization.at_points(space),
        )

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        if isinstance(inputs, Field):
            # Points that a compiled program is given cannot be refused.
            inside = self._inside(inputs)[:, None]
            a = self._checked(jnp.asarray(inputs.values), 1)
            inside = jnp.broadcast_to(inside, a.shape)
            a = jnp.where(inside, a, jnp.nan)
            domain = inputs.domain
        elif self.fields:
            raise InputError(
                f"FunctionInputs: inputs of shape {np.shape(inputs)} without their points, and "
                "the model was trained at points of its own; give Field.at(values, points)."
            )
        else:
            a = self._checked(jnp.asarray(inputs), self.dimension)
            shape = a.shape[-1 - self.dimension : -1]
            domain = self.points_of(shape)
            a = a.reshape(*a.shape[: -1 - self.dimension], domain.num_tokens, a.shape[-1])
        points = domain.points
        k = jnp.arange(1, self.modes + 1, dtype=points.dtype)
        waves = [jnp.zeros((len(points), 0), points.dtype)]
        for i, (_, length) in enumerate(self._axes):
            angles = 2 * jnp.pi * jnp.outer(points[:, i] / length, k)
            waves += jnp.cos(angles), jnp.sin(angles)
        waves = jnp.concatenate(waves, axis=-1).astype(a.dtype)
        waves = jnp.broadcast_to(waves, (*a.shape[:-1], waves.shape[-1]))
        u = self.embedding(jnp.concatenate([a, waves], axis=-1))
        u = self.normalization.project(drop(u, self.dropout, key))
        return Embedded(u, domain)

    def _inside(self, field: Field) -> Bool[Array | np.ndarray, " tokens"]:
        """Indicator of the points in [0, 1] along each axis that is no circle."""
        check_fields(field)
        points = field.domain.points
        points = np.asarray(points) if is_known(points) else points
        shape = np.shape(field.values)
        tokens = shape if self.channels is None else shape[:-1]
        if (*tokens[-1:], self.dimension) != points.shape:
            expected = "[..., tokens]" if self.channels is None else "[..., tokens, channels]"
            raise InputError(
                f"Field: values of shape {shape} at points of shape {points.shape}, but the "
                f"model takes {expected}, channels={self.channels}, and points "
                f"[tokens, {self.dimension}]."
            )
        rounding = 8 * np.finfo(points.dtype).eps
        within = (points >= -rounding) & (points <= 1 + rounding)
        # Where a whole number of waves goes once around.
        circles = np.array([rule == "periodic" and not (1 / x) % 1 for rule, x in self._axes])
        periods = field.domain.period or (None,) * self.dimension
        open_ends = [i for i, p in enumerate(periods) if p is None and circles[i]]
        if open_ends:
            raise InputError(
                f"Field: its domain has ends along axis {open_ends[0]}, where the model is for "
                "functions on a circle; give Field.at(values, points, periodic=True), or a "
                "period=… of its domain."
            )
        inside = (within | circles[None]).all(axis=-1)
        if is_known(inside) and not inside.all():
            first = np.asarray(points)[~np.asarray(inside)][0].tolist()
            raise InputError(
                f"Field: its domain has the point {first}, outside of [0, 1] along an axis "
                "that is not a circle; scale the coordinates to it."
            )
        return inside

    def _checked(self, a: Array, axes: int) -> Float[Array, "..."]:
        """Values with an axis of channels last, in the dtype of the weights."""
        channels = self.channels
        fits = a.ndim >= axes if channels is None else a.ndim > axes and a.shape[-1] == channels
        if not fits or not jnp.issubdtype(a.dtype, jnp.floating):
            names = ["tokens"] if axes == 1 else [f"points_{i + 1}" for i in range(axes)]
            expected = ", ".join(["...", *names, *["channels"] * (channels is not None)])
            raise InputError(
                f"FunctionInputs: inputs of shape {a.shape} and {a.dtype}, but the model takes "
                f"[{expected}], channels={channels}, of real floating-point numbers."
            )
        if channels is None:
            a = a[..., None]
        fewest = min(a.shape[-1 - axes : -1])
        if fewest <= 2 * self.modes:
            raise InputError(
                f"FunctionInputs: {fewest} points cannot tell the {self.modes} waves of the "
                f"coordinate apart; give at least {2 * self.modes + 1} points, or build the "
                "model with fewer modes (in a configuration model.options.modes)."
            )
        return a.astype(self.embedding.weight.dtype)


@checked
class FunctionValues(AbstractReadOut):
    """Values of functions at the points of the domain, `W N(u(x)) + b`, W and b of
    `linear`: `[..., tokens]`, or with `channels` `[..., tokens, channels]`."""

    linear: Linear
    normalization: AbstractConstraint = LayerNorm()
    channels: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        number = self.linear.weight.shape[1]
        if not self.channels and number != 1:
            raise InputError(
                f"FunctionValues: linear gives {number} values at each point; give "
                "channels=True, an axis for them."
            )

    @classmethod
    @checked
    def build(
        cls,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        channels: PositiveInt | None = None,
        output_channels: PositiveInt | None = None,
        normalization: AbstractConstraint = LayerNorm(),
        std: NonNegativeFloat = 0.02,
    ) -> "FunctionValues":
        """Draw W, whose entries have the standard deviation `std`.

        **Arguments:**

        - `channels`: as for `FunctionInputs`.
        - `output_channels`: values at each point of the outputs; by default as many as
          `channels`, and only beside these.
        """
        if output_channels is not None and channels is None:
            raise InputError(
                f"FunctionValues: output_channels={output_channels} for inputs without an axis "
                "of channels; give channels=1, and inputs with a last axis of one value."
            )
        linear = Linear(features, output_channels or channels or 1, std=std, key=key)
        return cls(linear, normalization, channels is not None)

    def check(self, inputs: AbstractInputs) -> None:
        given = isinstance(inputs, FunctionInputs)
        if given and self.channels != (inputs.channels is not None):
            raise InputError(
                f"FunctionValues: channels={self.channels} for inputs with channels="
                f"{inputs.channels}; give both an axis of channels, if only of one, or neither."
            )

    def __call__(self, u: State, inputs: AbstractInputs) -> Float[Array, "..."]:
        outputs = self.linear(self.normalization.project(u))
        return outputs if self.channels else outputs[..., 0]

    def shaped(self, outputs: PyTree[Array], inputs: PyTree[ArrayLike]) -> PyTree[Array]:
        if isinstance(inputs, Field):
            return outputs
        axes = (*jnp.shape(inputs)[:-1], outputs.shape[-1])
        return outputs.reshape(axes if self.channels else jnp.shape(inputs))

    def at_points(self, space: FunctionSpace, inputs: AbstractInputs) -> "FunctionValues":
        linear = self.linear.at_points(space.features, PLAIN)
        return FunctionValues(linear, self.normalization.at_points(space), self.channels)


@checked
class ChannelsFirst(eqx.Module):
    """A model of functions as a network of pdequinox and APEBench, or a stepper of exponax:

        [..., channels, *points] -> [..., channels, *points].

    `model` has an axis of channels last, or none for one value at each point; the points are
    its `grid`, "periodic" for exponax. Trained weights are in `model` again.
    """

    model: Model[AbstractInputs, FunctionValues]

    @checked
    def __call__(self, u: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        several = self.model.read_out.channels
        axis = -1 - self.model.domain.dimension
        if u.ndim < -axis or (not several and u.shape[axis] != 1):
            points = ", ".join(f"points_{i}" for i in range(1, -axis))
            raise InputError(
                f"ChannelsFirst: u has shape {u.shape}, but the model takes [..., "
                f"{'channels' if several else 1}, {points}]; one function without an axis of "
                "channels is u[None]."
            )
        if several:
            return jnp.moveaxis(self.model(jnp.moveaxis(u, axis, -1)), -1, axis)
        return jnp.expand_dims(self.model(jnp.squeeze(u, axis)), axis)
