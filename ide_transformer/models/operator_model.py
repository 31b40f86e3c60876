import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..arguments import Fraction, NonNegativeFloat, PositiveInt
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
    with_fields,
)
from ..errors import InputError
from .field import Field
from .model import AbstractModel, Discretization


class OperatorModel(AbstractModel):
    """A map from functions to functions on the circle or on the interval [0, 1]: tokens are
    points x with quadrature weights.

        u(x, 0) = W [a(x), cos 2πkx/L, sin 2πkx/L (k = 1, …, modes)] + b,
        output(x) = N(u(x, T)) W' + b',

    L = 1 on the circle and 2 on the interval. `model(a)` maps `a: [..., tokens]`, or
    `[..., tokens, channels]` where `channels` is given, to an output of the same shape; the
    points are those of `grid`. A `Field` in the place of a brings points of its own. Positions
    enter as functions of the coordinate, so that the model can be evaluated on any points;
    fewer than `2 modes + 1` cannot tell its waves apart.

    **Arguments:**

    - `points`: the number of points on which it is trained.
    - `features`: the width of the state.
    - `control`, `constraint`: as for `Equation`; its operators should not be causal.
    - `discretization`: how the equation is solved.
    - `channels`: values at each point, on an axis of their own; `None` for one value
      without it.
    - `modes`: the waves of the coordinate.
    - `grid`: the points of values that come alone: "periodic", `j / tokens` on the circle, or
      "midpoint", "gauss_legendre" or "clenshaw_curtis" on the interval, see `TokenDomain`.
    - `input_normalization`, `output_normalization`: applied to the embedded input and before
      the read-out.
    - `dropout`: the rate on the embedded input.
    - `std`: the standard deviation of the initial linear maps.

    **Raises:** `InputError` for more modes than the grid can tell apart.
    """

    embedding: Linear
    readout: Linear
    control: AbstractControl
    constraint: AbstractControl
    input_normalization: AbstractConstraint
    output_normalization: AbstractConstraint
    discretization: Discretization
    points: int = eqx.field(static=True)
    channels: int | None = eqx.field(static=True)
    modes: int = eqx.field(static=True)
    grid: PointRule = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        points: PositiveInt,
        features: PositiveInt,
        *,
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
        key: PRNGKeyArray,
        channels: PositiveInt | None = None,
        modes: PositiveInt = 8,
        grid: PointRule = "periodic",
        input_normalization: AbstractConstraint = Free(),
        output_normalization: AbstractConstraint = LayerNorm(),
        dropout: Fraction = 0.0,
        std: NonNegativeFloat = 0.02,
    ):
        if 2 * modes >= points:
            raise InputError(
                f"OperatorModel: modes={modes} on a grid of points={points}; give at most "
                f"{(points - 1) // 2} of them, or at least {2 * modes + 1} points."
            )
        values = 1 if channels is None else channels
        keys = jax.random.split(key)
        self.embedding = Linear(values + 2 * modes, features, bias=True, std=std, key=keys[0])
        self.readout = Linear(features, values, bias=True, std=std, key=keys[1])
        self.control = control
        self.constraint = as_control(constraint, control)
        self.input_normalization = input_normalization
        self.output_normalization = output_normalization
        self.discretization = discretization
        self.points = points
        self.channels = channels
        self.modes = modes
        self.grid = grid
        self.dropout = dropout

    @property
    def features(self) -> int:
        return self.embedding.weight.shape[1]

    @property
    def domain(self) -> TokenDomain:
        return self.points_of(self.points)

    def points_of(self, tokens: int) -> TokenDomain:
        """The points of values that come alone."""
        return getattr(TokenDomain, self.grid)(tokens)

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
        a = self._checked(jnp.asarray(inputs.values if isinstance(inputs, Field) else inputs))
        if isinstance(inputs, Field):
            inputs.check(a.shape[-2])
        domain = inputs.domain if isinstance(inputs, Field) else self.points_of(a.shape[-2])
        length = 1 if self.grid == "periodic" else 2
        waves = fourier_features(domain.positions / length, self.modes).astype(a.dtype)
        waves = jnp.broadcast_to(waves, (*a.shape[:-1], 2 * self.modes))
        u = self.embedding(jnp.concatenate([a, waves], axis=-1))
        return self.input_normalization.project(drop(u, self.dropout, key)), domain

    def read_out(self, u: Float[Array, "*batch tokens features"]) -> Float[Array, "..."]:
        outputs = self.readout(self.output_normalization.project(u))
        return outputs[..., 0] if self.channels is None else outputs

    def _checked(self, a: Array) -> Float[Array, "*batch tokens channels"]:
        """Values with an axis of channels, in the dtype of the weights."""
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise InputError(
                f"OperatorModel: values of {a.dtype}; it takes real floating-point numbers."
            )
        channels = self.channels
        fits = a.ndim >= 1 if channels is None else a.ndim >= 2 and a.shape[-1] == channels
        if not fits:
            expected = "[..., tokens]" if channels is None else "[..., tokens, channels]"
            raise InputError(
                f"OperatorModel: inputs of shape {a.shape}, but the model takes {expected}, "
                f"channels={channels}."
            )
        if channels is None:
            a = a[..., None]
        if a.shape[-2] <= 2 * self.modes:
            raise InputError(
                f"OperatorModel: {a.shape[-2]} points cannot tell the {self.modes} waves of "
                f"the coordinate apart; give at least {2 * self.modes + 1} points."
            )
        return a.astype(self.embedding.weight.dtype)


def fourier_features(x: Float[Array, " tokens"], modes: int) -> Float[Array, "tokens waves"]:
    """`cos 2πkx` for k = 1, …, modes, then `sin 2πkx`."""
    angles = 2 * jnp.pi * jnp.outer(x, jnp.arange(1, modes + 1, dtype=x.dtype))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
