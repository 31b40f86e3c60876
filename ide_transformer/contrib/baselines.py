"""Networks of pdequinox as models, baselines for models of functions.

ide-transformer train navier_stokes --baseline fno,resnet
"""

from typing import Any, ClassVar, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ide_transformer.arguments import NonNegativeInt, PositiveFloat, PositiveInt, checked
from ide_transformer.equation import AbstractOperator, Free, State, Tied, TokenDomain
from ide_transformer.errors import InputError
from ide_transformer.models import (
    AbstractInputs,
    Embedded,
    FunctionInputs,
    FunctionValues,
    Model,
    Statistics,
    Timed,
)
from ide_transformer.packages import require


Points: TypeAlias = PositiveInt | tuple[PositiveInt, ...]
Boundary: TypeAlias = Literal["periodic", "dirichlet", "neumann"]
# Networks of convolutions need equal distances: one rule for all axes, or one for each.
EqualRule: TypeAlias = Literal["periodic", "midpoint"]
Grid: TypeAlias = EqualRule | tuple[EqualRule, ...]


class NetworkRate(AbstractOperator):
    """A network B on a grid, for states `u = (a, v)` of inputs a and outputs v,

        a_t = 0,   v_t = B(a).

    From v = 0 every scheme reaches v(1) = B(a).

    **Arguments:**

    - `network`: B, `[inputs, *points] -> [outputs, *points]`, as in pdequinox.
    - `inputs`: the number of features in a.
    """

    configurable: ClassVar[bool] = False
    network: eqx.Module
    inputs: PositiveInt = eqx.field(static=True)

    def __call__(self, u: State, domain: TokenDomain) -> State:
        a = u[..., : self.inputs]
        return jnp.concatenate([jnp.zeros_like(a), self.apply_network(a, domain)], axis=-1)

    def apply_network(
        self, a: State, domain: TokenDomain
    ) -> Float[Array, "*batch tokens outputs"]:
        """B(a) at the points of a grid."""
        if domain.grid is None or domain.prefix:
            raise InputError(
                "A baseline takes functions on a regular grid, but these are at other points; "
                "set data.options.points=grid, or remove the baseline."
            )
        weights = jax.tree.leaves(eqx.filter(self.network, eqx.is_inexact_array))
        on_grid = a.reshape(-1, *domain.grid, self.inputs).astype(jnp.result_type(*weights))
        apply: Any = jax.vmap(self.network)  # pyright: ignore[reportArgumentType]
        try:
            outputs = apply(jnp.moveaxis(on_grid, -1, 1))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{type(self.network).__name__} does not fit {domain.grid} points ({error}); "
                "use more points, or train it with fewer modes or levels."
            ) from None
        outputs = jnp.moveaxis(outputs, 1, -1).astype(a.dtype)
        return outputs.reshape(*a.shape[:-1], -1)


@checked
class NetworkInputs(FunctionInputs):
    """The initial state of `NetworkRate`: a has the values and waves of `FunctionInputs`, and
    v = 0. `outputs` is the number of features in v. There are no weights."""

    embedding: None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    outputs: PositiveInt = eqx.field(static=True, default=1, kw_only=True)
    # No weights depend on features, so other points change nothing.
    at_points = AbstractInputs.at_points  # pyright: ignore[reportAssignmentType]

    @property
    def input_features(self) -> int:
        """The number of features in a."""
        return (self.channels or 1) + 2 * self.modes * self.dimension

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of points along each axis."""
        return self.points if isinstance(self.points, tuple) else (self.points,)

    @property
    def boundary(self) -> Boundary:
        """The default boundary mode of the network."""
        rules = {*self.grid} if isinstance(self.grid, tuple) else {self.grid}
        is_torus = rules == {"periodic"} and self.wavelength is None
        return "periodic" if is_torus else "dirichlet"

    @property
    def dtype(self) -> Any:
        return jnp.result_type(float)

    @property
    def features(self) -> int:
        return self.input_features + self.outputs

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        if isinstance(inputs, Timed):
            raise InputError(
                "A baseline learns a single step of time; set data.options.steps=[1] with "
                "states at equal times, or remove the baseline."
            )
        a, domain = self.placed(inputs)
        v = jnp.zeros((*a.shape[:-1], self.outputs), a.dtype)
        return Embedded(jnp.concatenate([a, v], axis=-1), domain)


@checked
class NetworkValues(FunctionValues):
    """The outputs v of `NetworkRate`."""

    linear: None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    outputs: PositiveInt = eqx.field(static=True, default=1, kw_only=True)

    @property
    def number(self) -> int:
        return self.outputs

    def values(self, u: State, inputs: AbstractInputs) -> Float[Array, "..."]:
        return u[..., -self.outputs :]


@checked
def FNO(
    points: Points,
    *,
    key: PRNGKeyArray,
    channels: PositiveInt | None = None,
    output_channels: PositiveInt | None = None,
    modes: NonNegativeInt = 1,
    grid: Grid = "periodic",
    wavelength: PositiveFloat | None = None,
    statistics: Statistics | None = None,
    output_statistics: Statistics | None = None,
    duration: PositiveFloat = 1.0,
    hidden_channels: PositiveInt = 32,
    num_modes: PositiveInt | None = None,
    num_blocks: PositiveInt = 4,
) -> Model[FunctionInputs, FunctionValues]:
    """The Fourier neural operator. Its blocks multiply the lowest Fourier coefficients by
    matrices, add a linear map at each point, and apply GELU. The Fourier transform treats
    functions on an interval as periodic, too.

    **Arguments:**

    - `points`, `channels`, `output_channels`, `grid`, `wavelength`, `statistics`,
      `output_statistics`, `duration`: see `OperatorModel`; `grid` is "periodic" or "midpoint".
    - `modes`: the number of waves that encode the coordinates. With 0 the network commutes with
      translations of a torus.
    - `num_modes`: Fourier coefficients along each axis. Default: 12, or all of a smaller grid.
    - `hidden_channels`: channels between the blocks.
    - `num_blocks`: the number of blocks.

    **Raises:** `InputError` without pdequinox, on other grids, and for more `num_modes` than
    half of the points along an axis.

    Reference: Li et al., ICLR 2021, arXiv 2010.08895.
    """
    inputs = _inputs(
        points, channels, output_channels, modes, grid, wavelength, statistics, duration
    )
    most = min(inputs.shape) // 2
    if (num_modes or 1) > most:
        raise InputError(
            f"FNO: num_modes={num_modes or 1} on points={points} must be at most {most}."
        )
    return _model(
        "ClassicFNO",
        inputs,
        output_statistics,
        key,
        hidden_channels=hidden_channels,
        num_modes=num_modes or min(12, most),
        num_blocks=num_blocks,
    )


@checked
def Resnet(
    points: Points,
    *,
    key: PRNGKeyArray,
    channels: PositiveInt | None = None,
    output_channels: PositiveInt | None = None,
    modes: NonNegativeInt = 1,
    grid: Grid = "periodic",
    wavelength: PositiveFloat | None = None,
    statistics: Statistics | None = None,
    output_statistics: Statistics | None = None,
    duration: PositiveFloat = 1.0,
    boundary_mode: Boundary | None = None,
    hidden_channels: PositiveInt = 32,
    num_blocks: PositiveInt = 6,
) -> Model[FunctionInputs, FunctionValues]:
    """A residual network of blocks with two convolutions over three points each.

    **Arguments:** see `FNO`, and

    - `boundary_mode`: the values beyond the ends of an axis: "periodic", "dirichlet" (zeros) or
      "neumann" (the reflected function). Default: "periodic" on a torus, else "dirichlet".

    Reference: He et al., CVPR 2016, arXiv 1512.03385.
    """
    inputs = _inputs(
        points, channels, output_channels, modes, grid, wavelength, statistics, duration
    )
    return _model(
        "ClassicResNet",
        inputs,
        output_statistics,
        key,
        boundary_mode=boundary_mode or inputs.boundary,
        hidden_channels=hidden_channels,
        num_blocks=num_blocks,
    )


@checked
def Unet(
    points: Points,
    *,
    key: PRNGKeyArray,
    channels: PositiveInt | None = None,
    output_channels: PositiveInt | None = None,
    modes: NonNegativeInt = 1,
    grid: Grid = "periodic",
    wavelength: PositiveFloat | None = None,
    statistics: Statistics | None = None,
    output_statistics: Statistics | None = None,
    duration: PositiveFloat = 1.0,
    boundary_mode: Boundary | None = None,
    hidden_channels: PositiveInt = 16,
    num_levels: PositiveInt | None = None,
) -> Model[FunctionInputs, FunctionValues]:
    """The U-Net: convolutions on coarser and coarser grids. Each level has half the points
    along each axis, and twice the channels.

    **Arguments:** see `Resnet`, and

    - `num_levels`: the number of coarser grids. Default: 4, or as often as 2 divides the
      points.

    `2 ** num_levels` must divide the number of points along each axis.

    Reference: Ronneberger et al., MICCAI 2015, arXiv 1505.04597.
    """
    inputs = _inputs(
        points, channels, output_channels, modes, grid, wavelength, statistics, duration
    )
    divides = [n for n in range(1, 5) if not any(x % 2**n for x in inputs.shape)]
    levels = num_levels or max(divides, default=1)
    return _model(
        "ClassicUNet",
        inputs,
        output_statistics,
        key,
        boundary_mode=boundary_mode or inputs.boundary,
        hidden_channels=hidden_channels,
        num_levels=levels,
    )


def _inputs(
    points: Points,
    channels: int | None,
    outputs: int | None,
    modes: int,
    grid: Grid,
    wavelength: float | None,
    statistics: Statistics | None,
    duration: float,
) -> NetworkInputs:
    return NetworkInputs(
        points,
        channels=channels,
        modes=modes,
        grid=grid,
        wavelength=wavelength,
        statistics=statistics,
        duration=duration,
        outputs=outputs or channels or 1,
    )


def _model(
    name: str,
    inputs: NetworkInputs,
    statistics: Statistics | None,
    key: PRNGKeyArray,
    **options: Any,
) -> Model[FunctionInputs, FunctionValues]:
    """A network of `pdequinox.arch` as a model."""
    require("pdequinox", "emulators", "Baselines are networks of")
    from pdequinox import arch

    features = inputs.input_features
    network = getattr(arch, name)(
        inputs.dimension, features, inputs.outputs, key=key, **options
    )
    read_out = NetworkValues(
        channels=inputs.channels is not None, statistics=statistics, outputs=inputs.outputs
    )
    return Model(inputs, Tied((NetworkRate(network, features),), 1), Free(), read_out)
