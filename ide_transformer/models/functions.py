"""Inputs and outputs that are functions, as values at points."""

import dataclasses
import functools as ft
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import equinox as eqx
import jax
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
    interpolation,
    with_fields,
)
from ..errors import InputError
from .model import Model
from .parts import AbstractInputs, Embedded, Timed
from .read_outs import AbstractValues
from .units import Statistics, check_statistics, standardize


class Field(NamedTuple):
    """Values of functions at the points of a domain.

    - `values`: `[..., tokens]`, or `[..., tokens, channels]`.
    - `domain`: the points and their quadrature weights, for all samples or for each.
    """

    values: Float[Array | np.ndarray, "..."]
    domain: TokenDomain

    @classmethod
    @checked
    def at(
        cls,
        values: Float[Array | np.ndarray, "..."],
        points: Float[Array | np.ndarray, "_ ..."],
        mask: Bool[Array | np.ndarray, "samples tokens"] | None = None,
        *,
        periodic: bool = False,
    ) -> "Field":
        """Functions at points of the unit interval, square or cube. The weight of a point is
        the size of its Voronoi cell.

        **Arguments:**

        - `points`: `[tokens]` or `[tokens, dimension]` for all samples, or
          `[samples, tokens, dimension]`.
        - `mask`: `False` at padding, which has no influence, if each sample has its own points.
        - `periodic`: whether the points lie on a circle or torus.
        """
        points = np.asarray(points)
        dimension = 1 if points.ndim == 1 else points.shape[-1]
        period = (1.0,) * dimension if periodic else None
        domain = TokenDomain.from_points(points, ((0.0, 1.0),) * dimension, period, mask)
        values = np.array(values)
        if mask is not None:
            values[~np.asarray(mask)] = 0
        return cls(values, domain)


def fed_back(inputs: Any, outputs: Array | np.ndarray) -> Any:
    """The inputs of the next step of a roll-out: `outputs` replace the states, which are the
    first channels of `inputs`. Further channels stay."""
    if isinstance(inputs, Timed):
        return inputs._replace(inputs=fed_back(inputs.inputs, outputs))
    if isinstance(inputs, Field):
        return inputs._replace(values=fed_back(inputs.values, outputs))
    if outputs.size == inputs.size:
        return outputs.reshape(inputs.shape)
    states = outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])
    return jnp.concatenate([states, inputs[..., states.shape[-1] :]], axis=-1)


@checked
class FunctionInputs(AbstractInputs):
    """Functions on products of circles and intervals [0, 1]: tokens are points x with
    quadrature weights,

        u(x, 0) = N(W [a(x), cos 2πk x_i / L_i, sin 2πk x_i / L_i] + b),

    with k = 1, …, modes along each axis i, L_i = 1 on a circle and 2 on an interval. With
    `statistics` a(x) is the input in standard deviations, `(input - mean) / std`.

    Inputs are values at the points of `grid`: `[..., tokens]` on a line, `[..., rows, columns]`
    in the plane, and so on, with an axis of channels last if `channels` is set. Or they are a
    `Field` with its own points. There may be any number of points from `2 modes + 1` along an
    axis. Outputs have the shape of the inputs.

    The model maps functions over a time Δt_0. For `Timed` inputs with another time Δt the rate
    of the equation is multiplied by Δt/Δt_0.

    **Arguments:**

    - `points`: the number of points in training, or one number for each axis.
    - `embedding`: W and b.
    - `channels`: the number of values at each point; `None` for one value without an axis.
    - `modes`: the number of waves; with 0 the model sees no positions, so on a circle it is
      translation-equivariant.
    - `grid`: the points of plain arrays: "periodic", `j / tokens` on the circle, or "midpoint"
      or "gauss_legendre" on the interval, see `TokenDomain`; one rule for all axes, or one for
      each.
    - `wavelength`: L for all axes; 2 on a "periodic" grid for functions that are not periodic.
    - `normalization`, `dropout`: N, and the dropout rate before it.
    - `fields`: whether inputs must be a `Field`, because training used other points than
      `grid`.
    - `statistics`: the mean and the standard deviation of each channel, see `statistics`.
    - `duration`: Δt_0, the time of a map in training.

    **Raises:** `InputError` for points outside [0, 1] along an interval; in a compiled program
    such outputs are NaN.
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
    statistics: Statistics | None = eqx.field(static=True, default=None)
    duration: PositiveFloat = eqx.field(static=True, default=1.0)
    _input_domain: TokenDomain | None = None

    def __check_init__(self):
        check_statistics(self, self.statistics, self.channels or 1)
        self._shape_of(self.points)

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
        grid: PointRule | tuple[PointRule, ...] = "periodic",
        wavelength: PositiveFloat | None = None,
        normalization: AbstractConstraint = Free(),
        dropout: Fraction = 0.0,
        fields: bool = False,
        statistics: Statistics | None = None,
        duration: PositiveFloat = 1.0,
        std: NonNegativeFloat = 0.02,
    ) -> "FunctionInputs":
        """Draw W with standard deviation `std`. For the other arguments see the class."""
        dimension = len(points) if isinstance(points, tuple) else 1
        numbers = (channels or 1) + 2 * modes * dimension
        embedding = Linear(numbers, features, std=std, key=key)
        return cls(
            points,
            embedding,
            channels=channels,
            modes=modes,
            grid=grid,
            wavelength=wavelength,
            normalization=normalization,
            dropout=dropout,
            fields=fields,
            statistics=statistics,
            duration=duration,
        )

    @property
    def features(self) -> int:
        return self.embedding.weight.shape[1]

    @property
    def dtype(self) -> Any:
        """The dtype of the state."""
        return self.embedding.weight.dtype

    @property
    def dimension(self) -> int:
        """The dimension of the points."""
        return len(self.points) if isinstance(self.points, tuple) else 1

    @property
    def domain(self) -> TokenDomain:
        return self._input_domain or self.points_of(self.points)

    def with_domain_of(self, inputs: PyTree[ArrayLike] | None) -> "FunctionInputs":
        if inputs is None:
            return self
        if isinstance(inputs, Timed):
            return self.with_domain_of(inputs.inputs)
        if isinstance(inputs, Field):
            return dataclasses.replace(self, _input_domain=inputs.domain)
        shape = jnp.shape(inputs) if self.channels is None else jnp.shape(inputs)[:-1]
        axes = shape[len(shape) - self.dimension :]
        points = axes if isinstance(self.points, tuple) else axes[0]
        return dataclasses.replace(self, points=points)

    def points_of(self, tokens: int | tuple[int, ...]) -> TokenDomain:
        """The grid of plain arrays with `tokens` points along each axis."""
        axes = zip(self._axes, self._shape_of(tokens), strict=True)
        return ft.reduce(
            TokenDomain.product, (getattr(TokenDomain, rule)(n) for (rule, _), n in axes)
        )

    def _shape_of(self, points: int | tuple[int, ...]) -> tuple[int, ...]:
        """The number of points along each axis."""
        shape = points if isinstance(points, tuple) else (points,)
        if not 0 < len(shape) == len(self._axes) == self.dimension:
            raise InputError(
                f"FunctionInputs: got {points=} and grid={self.grid} in dimension "
                f"{self.dimension}; pass a number of points for each axis, and one rule for "
                "all axes or one for each."
            )
        return shape

    @property
    def _axes(self) -> list[tuple[PointRule, float]]:
        """The rule of the points and L for each axis."""
        rules = self.grid if isinstance(self.grid, tuple) else (self.grid,) * self.dimension
        return [(x, self.wavelength or (1.0 if x == "periodic" else 2.0)) for x in rules]

    def at_points(self, space: FunctionSpace) -> "FunctionInputs":
        return with_fields(
            self,
            embedding=self.embedding.at_points(PLAIN, space.features),
            normalization=self.normalization.at_points(space),
        )

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        if isinstance(inputs, Timed):
            rate = jnp.asarray(inputs.duration, self.dtype) / self.duration
            return self.embed(inputs.inputs, key=key)._replace(rate=rate)
        values, domain = self.placed(inputs)
        u = self.normalization.project(drop(self.embedding(values), self.dropout, key))
        return Embedded(u, domain)

    def placed(self, inputs: PyTree[ArrayLike]) -> tuple[Float[Array, "..."], TokenDomain]:
        """The values a(x) with the waves at x, `[..., tokens, channels + 2 modes dimension]`,
        and the domain of the points."""
        if isinstance(inputs, Field):
            check_fields(inputs)
            domain = inputs.domain
            a = self._check_values(jnp.asarray(inputs.values), 1)
            samples = a.shape[:-2] if domain.of_samples else ()
            if (*samples, a.shape[-2], self.dimension) != domain.points.shape:
                raise InputError(
                    f"Field: got {a.shape[-2]} values at points {domain.points.shape}; pass "
                    f"points [{a.shape[-2]}, {self.dimension}] for all samples, or "
                    f"[samples, {a.shape[-2]}, {self.dimension}]."
                )
            inside = jnp.broadcast_to(self._inside(domain)[..., None], a.shape)
            a = jnp.where(inside, a, jnp.nan)
        elif self.fields:
            raise InputError(
                f"FunctionInputs: got inputs {np.shape(inputs)} without points; pass "
                "Field.at(values, points)."
            )
        else:
            a = self._check_values(jnp.asarray(inputs), self.dimension)
            shape = a.shape[-1 - self.dimension : -1]
            domain = self.points_of(shape)
            a = a.reshape(*a.shape[: -1 - self.dimension], domain.num_tokens, a.shape[-1])
        points = domain.points
        k = jnp.arange(1, self.modes + 1, dtype=points.dtype)
        k = jnp.expand_dims(k, range(points.ndim - 1))
        waves = [jnp.zeros((*points.shape[:-1], 0), points.dtype)]
        for i, (_, length) in enumerate(self._axes):
            angles = 2 * jnp.pi * (points[..., i, None] / length * k)
            waves += jnp.cos(angles), jnp.sin(angles)
        waves = jnp.concatenate(waves, axis=-1).astype(a.dtype)
        waves = jnp.broadcast_to(waves, (*a.shape[:-1], waves.shape[-1]))
        return jnp.concatenate([a, waves], axis=-1), domain

    def _inside(self, domain: TokenDomain) -> Bool[Array | np.ndarray, "*samples tokens"]:
        """Whether each point is in [0, 1] along all intervals."""
        points = np.asarray(domain.points) if is_known(domain.points) else domain.points
        rounding = 8 * np.finfo(points.dtype).eps
        within = (points >= -rounding) & (points <= 1 + rounding)
        # The waves are periodic.
        circles = np.array([rule == "periodic" and not (1 / x) % 1 for rule, x in self._axes])
        periods = domain.period or (None,) * self.dimension
        open_ends = [i for i, p in enumerate(periods) if p is None and circles[i]]
        if open_ends:
            raise InputError(
                f"Field: its domain has ends along axis {open_ends[0]}, which is a circle in "
                "the model; pass Field.at(values, points, periodic=True), or a period=…."
            )
        inside = (within | np.broadcast_to(circles, within.shape)).all(axis=-1)
        if is_known(inside) and not inside.all():
            first = np.asarray(points)[~np.asarray(inside)][0].tolist()
            raise InputError(
                f"Field: the point {first} of its domain must be in [0, 1] along all axes that "
                "are not circles; scale the coordinates."
            )
        return inside

    def _check_values(self, a: Array, axes: int) -> Float[Array, "..."]:
        """Values `[..., channels]` in the dtype of the state."""
        channels = self.channels
        fits = a.ndim >= axes if channels is None else a.ndim > axes and a.shape[-1] == channels
        if not fits or not jnp.issubdtype(a.dtype, jnp.floating):
            raise InputError(
                f"FunctionInputs: got inputs {a.shape} of {a.dtype}, expected real "
                f"floating-point numbers with {axes} axes of points and {channels=}, their "
                "axis last."
            )
        if channels is None:
            a = a[..., None]
        fewest = min(a.shape[-1 - axes : -1])
        if fewest <= 2 * self.modes:
            raise InputError(
                f"FunctionInputs: {fewest} points cannot resolve the {self.modes} waves of an "
                f"axis; pass at least {2 * self.modes + 1} points, or build the model with "
                "fewer modes (model.options.modes)."
            )
        return standardize(a.astype(self.dtype), self.statistics)


@checked
class FunctionValues(AbstractValues):
    """Values of functions at the points of the domain,

        mean + std (W N(u(x)) + b):  `[..., tokens]`, or `[..., tokens, channels]`.

    `linear` holds W and b; for `channels` and `statistics` see `AbstractValues`."""

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
        statistics: Statistics | None = None,
        std: NonNegativeFloat = 0.02,
    ) -> "FunctionValues":
        """Draw W with standard deviation `std`.

        **Arguments:**

        - `channels`, `statistics`: see `FunctionInputs`.
        - `output_channels`: the number of values at each point; by default `channels`.
        """
        linear = Linear(features, output_channels or channels or 1, std=std, key=key)
        return cls(linear, normalization, channels is not None, statistics)

    def check(self, inputs: AbstractInputs) -> None:
        if isinstance(inputs, FunctionInputs) and self.channels != (
            inputs.channels is not None
        ):
            raise InputError(
                f"FunctionValues: channels={self.channels} for inputs with channels="
                f"{inputs.channels}; set an axis of channels for both, or for neither."
            )

    def pool(self, v: State, inputs: AbstractInputs) -> State:
        return v

    def shaped(self, outputs: PyTree[Array], inputs: PyTree[ArrayLike]) -> PyTree[Array]:
        if isinstance(inputs, Timed):
            inputs = inputs.inputs
        if isinstance(inputs, Field):
            return outputs
        shape = jnp.shape(inputs)
        return outputs.reshape((*shape[:-1], outputs.shape[-1]) if self.channels else shape)


@checked
def outputs_at(
    model: Model[FunctionInputs, Any],
    field: Field,
    points: Float[Array | np.ndarray, "*samples queries dimension"],
    values: Float[Array | np.ndarray, "..."] | None = None,
) -> PyTree[Array]:
    """The outputs of a model at new points: `[..., queries]`, or `[..., queries, channels]`.
    Each new point is a token of weight zero: it integrates over the points of `field`, and no
    other token sees it. For a linear integral equation this is Nyström's interpolation (1930).

    **Arguments:**

    - `points`: `[queries, dimension]`; or `[samples, queries, dimension]` if each sample of
      `field` has its own points.
    - `values`: the inputs at `points`. Default: interpolated, linearly on a line or in Delaunay
      simplices, see `interpolation`, which needs points that are not traced.
    """
    check_fields(field)
    domain = field.domain.with_queries(points)
    num_tokens = field.domain.num_tokens
    channels = model.inputs.channels is not None
    field_values = jnp.asarray(field.values)
    if values is None:
        functions = field_values if channels else field_values[..., None]
        queries = TokenDomain(domain.points[..., num_tokens:, :], period=domain.period)
        interpolated = _interpolate(functions, field.domain, queries)
        values = interpolated if channels else interpolated[..., 0]
    all_values = [field_values, jnp.asarray(values, field_values.dtype)]
    inputs = jnp.concatenate(all_values, -2 if channels else -1)
    outputs = model(Field(inputs, domain))
    axis = -2 if model.read_out.channels else -1
    return jax.lax.slice_in_dim(outputs, num_tokens, outputs.shape[axis], axis=axis)


def _interpolate(
    values: Float[Array, "..."], source: TokenDomain, target: TokenDomain
) -> Float[Array, "..."]:
    """Interpolates functions `[..., tokens, channels]` to the points of `target`."""
    if not (is_known(source.points) and is_known(target.points)):
        raise InputError(
            "outputs_at: the points are traced, so values are not interpolated; pass values=…."
        )
    if not source.of_samples:
        return interpolation(source, target)(values)
    weights = source.weights
    real = np.ones(values.shape[:-1], bool) if weights is None else np.asarray(weights) > 0
    results = []
    for sample in np.ndindex(*source.points.shape[:-2]):
        is_real = real[sample]
        points = TokenDomain(source.points[sample][is_real], period=source.period)
        queries = TokenDomain(target.points[sample], period=source.period)
        results.append(interpolation(points, queries)(values[sample][is_real]))
    return jnp.stack(results).reshape(*target.points.shape[:-1], values.shape[-1])
