import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..arguments import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from ..equation import (
    PLAIN,
    AbstractConstraint,
    AbstractControl,
    Free,
    Functional,
    FunctionSpace,
    LayerNorm,
    Linear,
    PointRule,
    TokenDomain,
    as_control,
    drop,
    parts,
    with_fields,
)
from ..errors import InputError
from .field import Field
from .model import Discretization, Model


class OperatorModel(Model):
    """A map from functions to functions on the circle or on the interval [0, 1], or on the
    product of several of them: tokens are points x with quadrature weights.

        u(x, 0) = W [a(x), cos 2πk x_i / L_i, sin 2πk x_i / L_i] + b,
        output(x) = N(u(x, T)) W' + b',

    with the waves k = 1, …, modes along each axis i, L_i = 1 around a circle and 2 along an
    interval. `model(a)` maps `a: [..., tokens]` on a line, `[..., rows, columns]` in the plane,
    and so on, with a last axis of channels where `channels` is given, to an output of the same
    shape; the points are those of `grid`. A
    `Field` in the place of a brings points of its own, with values `[..., tokens]` in any
    dimension; so have the outputs. Positions enter as functions of the coordinates, so that
    the model can be evaluated on any points; fewer than `2 modes + 1` along an axis cannot tell
    its waves apart. Products of waves of several axes are left to the feed-forward.

    **Arguments:**

    - `points`: the number of points on which it is trained, or that along each axis.
    - `features`: the width of the state.
    - `control`, `constraint`: as for `Equation`; its operators should not be causal.
    - `discretization`: how the equation is solved.
    - `channels`: values at each point, on an axis of their own; `None` for one value
      without it.
    - `modes`: the waves of each coordinate.
    - `grid`: the points of values that come alone: "periodic", `j / tokens` on the circle, or
      "midpoint", "gauss_legendre" or "clenshaw_curtis" on the interval, see `TokenDomain`; one
      for all axes, or one for each.
    - `wavelength`: L, the longest wave of the positions; `None` for those above. 2 on a
      "periodic" grid for functions that do not meet at the ends.
    - `input_normalization`, `output_normalization`: applied to the embedded input and before
      the read-out.
    - `dropout`: the rate on the embedded input.
    - `std`: the standard deviation of the initial linear maps.

    **Raises:** `InputError` for more modes than the grid can tell apart, and for another number
    of grids than axes; when called, for fields of another dimension and for points outside
    of [0, 1] along an axis that is no circle; where a compiled program is given these, the
    outputs are not a number.
    """

    embedding: Linear
    readout: Linear
    control: AbstractControl
    constraint: AbstractControl
    input_normalization: AbstractConstraint
    output_normalization: AbstractConstraint
    discretization: Discretization
    points: int | tuple[int, ...] = eqx.field(static=True)
    channels: int | None = eqx.field(static=True)
    modes: int = eqx.field(static=True)
    grid: PointRule | tuple[PointRule, ...] = eqx.field(static=True)
    wavelength: float | None = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        points: PositiveInt | tuple[PositiveInt, ...],
        features: PositiveInt,
        *,
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
        key: PRNGKeyArray,
        channels: PositiveInt | None = None,
        modes: PositiveInt = 8,
        grid: PointRule | tuple[PointRule, ...] = "periodic",
        wavelength: PositiveFloat | None = None,
        input_normalization: AbstractConstraint = Free(),
        output_normalization: AbstractConstraint = LayerNorm(),
        dropout: Fraction = 0.0,
        std: NonNegativeFloat = 0.02,
    ):
        self.points, self.grid = points, grid
        if not self._shape or len(self._grids) != len(self._shape):
            raise InputError(
                f"OperatorModel: grid={grid} for points={points}; give one rule for all axes, "
                "or one for each."
            )
        if 2 * modes >= (fewest := min(self._shape)):
            raise InputError(
                f"OperatorModel: modes={modes} on a grid of points={points}; give at most "
                f"{(fewest - 1) // 2} of them, or at least {2 * modes + 1} points."
            )
        values = 1 if channels is None else channels
        keys = jax.random.split(key)
        inputs = values + 2 * modes * self.dimension
        self.embedding = Linear(inputs, features, bias=True, std=std, key=keys[0])
        self.readout = Linear(features, values, bias=True, std=std, key=keys[1])
        self.control = control
        self.constraint = as_control(constraint, control)
        self.input_normalization = input_normalization
        self.output_normalization = output_normalization
        self.discretization = discretization
        self.channels = channels
        self.modes = modes
        self.wavelength = wavelength
        self.dropout = dropout

    @property
    def features(self) -> int:
        return self.embedding.weight.shape[1]

    @property
    def dimension(self) -> int:
        """Dimension of the points."""
        return len(self._shape)

    @property
    def domain(self) -> TokenDomain:
        return self.points_of(self.points)

    def points_of(self, tokens: int | tuple[int, ...]) -> TokenDomain:
        """The points of values that come alone: so many, or so many along each axis.

        **Raises:** `InputError` for another number of axes.
        """
        shape = tokens if isinstance(tokens, tuple) else (tokens,)
        if len(shape) != self.dimension:
            raise InputError(
                f"OperatorModel: points={tokens} for a model of functions in dimension "
                f"{self.dimension}; give a number for each axis."
            )
        axes = (
            getattr(TokenDomain, rule)(n) for rule, n in zip(self._grids, shape, strict=True)
        )
        return ft.reduce(TokenDomain.product, axes)

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.points if isinstance(self.points, tuple) else (self.points,)

    @property
    def _grids(self) -> tuple[PointRule, ...]:
        """The rule of each axis."""
        if isinstance(self.grid, tuple):
            return self.grid
        return (self.grid,) * len(self._shape)

    def at_points(self, space: FunctionSpace) -> "OperatorModel":
        y = space.features
        return with_fields(
            self,
            embedding=self.embedding.at_points(PLAIN, y),
            readout=self.readout.at_points(y, PLAIN),
            control=Functional(self.control, space),
            constraint=Functional(self.constraint, space),
            input_normalization=self.input_normalization.at_points(space),
            output_normalization=self.output_normalization.at_points(space),
        )

    def embed(
        self, inputs: Float[ArrayLike, "..."] | Field, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        if isinstance(inputs, Field):
            a = self._checked(jnp.asarray(inputs.values), 1)
            bounded = tuple(length != 1 for length in self._wavelengths)
            inputs.check(a.shape[-2], bounded)
            # Points that a compiled program is given cannot be refused.
            inside = jnp.broadcast_to(inputs.inside(bounded)[:, None], a.shape)
            a, domain = jnp.where(inside, a, jnp.nan), inputs.domain
        elif isinstance(inputs, tuple) and parts(inputs, TokenDomain):
            raise InputError(
                "OperatorModel: inputs are a tuple with a domain; write Field(values, domain)."
            )
        else:
            a = self._checked(jnp.asarray(inputs), self.dimension)
            shape = a.shape[-1 - self.dimension : -1]
            domain = self.points_of(shape)
            a = a.reshape(*a.shape[: -1 - self.dimension], domain.num_tokens, a.shape[-1])
        waves = self._waves(domain.points).astype(a.dtype)
        waves = jnp.broadcast_to(waves, (*a.shape[:-1], waves.shape[-1]))
        u = self.embedding(jnp.concatenate([a, waves], axis=-1))
        return self.input_normalization.project(drop(u, self.dropout, key)), domain

    def read_out(self, u: Float[Array, "*batch tokens features"]) -> Float[Array, "..."]:
        outputs = self.readout(self.output_normalization.project(u))
        return outputs[..., 0] if self.channels is None else outputs

    def shaped(
        self, outputs: Float[Array, "..."], inputs: Float[ArrayLike, "..."] | Field
    ) -> Float[Array, "..."]:
        return outputs if isinstance(inputs, Field) else outputs.reshape(jnp.shape(inputs))

    @property
    def _wavelengths(self) -> list[float]:
        """L along each axis."""
        return [self.wavelength or (1.0 if rule == "periodic" else 2.0) for rule in self._grids]

    def _waves(self, points: Float[Array, "tokens dimension"]) -> Float[Array, "tokens waves"]:
        axes = (points[:, i] / length for i, length in enumerate(self._wavelengths))
        return jnp.concatenate([fourier_features(x, self.modes) for x in axes], axis=-1)

    def _checked(self, a: Array, axes: int) -> Float[Array, "..."]:
        """Values with an axis of channels after those of the points, in the dtype of the
        weights."""
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise InputError(
                f"OperatorModel: values of {a.dtype}; it takes real floating-point numbers."
            )
        channels = self.channels
        fits = a.ndim >= axes if channels is None else a.ndim > axes and a.shape[-1] == channels
        if not fits:
            names = ["tokens"] if axes == 1 else [f"points_{i + 1}" for i in range(axes)]
            names = ["rows", "columns"] if axes == 2 else names
            expected = ["...", *names] if channels is None else ["...", *names, "channels"]
            raise InputError(
                f"OperatorModel: inputs of shape {a.shape}, but the model takes "
                f"[{', '.join(expected)}], channels={channels}."
            )
        if channels is None:
            a = a[..., None]
        shape = a.shape[-1 - axes : -1]
        if min(shape) <= 2 * self.modes:
            raise InputError(
                f"OperatorModel: {min(shape)} points cannot tell the {self.modes} waves of "
                f"the coordinate apart; give at least {2 * self.modes + 1} points."
            )
        return a.astype(self.embedding.weight.dtype)


def fourier_features(x: Float[Array, " tokens"], modes: int) -> Float[Array, "tokens waves"]:
    """`cos 2πkx` for k = 1, …, modes, then `sin 2πkx`."""
    angles = 2 * jnp.pi * jnp.outer(x, jnp.arange(1, modes + 1, dtype=x.dtype))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
