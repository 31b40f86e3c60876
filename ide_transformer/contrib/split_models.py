"""Models whose state is the function itself, so that operators keep their meaning. A network of
pdequinox can be one of the operators."""

import dataclasses
from typing import Any, Literal

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree

from ide_transformer.arguments import PositiveFloat, PositiveInt, checked
from ide_transformer.contrib.baselines import (
    FNO,
    Grid,
    NetworkInputs,
    NetworkRate,
    NetworkValues,
    Points,
    Resnet,
    Unet,
)
from ide_transformer.contrib.constant_coefficients import ConstantCoefficients
from ide_transformer.equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractLinearOperator,
    AbstractOperator,
    Dimension,
    Free,
    State,
    TokenDomain,
    check_features,
    parts,
)
from ide_transformer.errors import InputError
from ide_transformer.integration import Mesh
from ide_transformer.models import (
    Embedded,
    FunctionInputs,
    FunctionValues,
    Model,
    Statistics,
    Timed,
)
from ide_transformer.solvers import LieTrotter


@checked
class StateInputs(NetworkInputs):
    """Takes the function itself as the state at depth 0, `u(x, 0) = a(x)`. With `statistics` it
    is in standard deviations. There are no weights."""

    @property
    def features(self) -> int:
        return self.input_features

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        if isinstance(inputs, Timed):
            rate = jnp.asarray(inputs.duration, self.dtype) / self.duration
            return self.embed(inputs.inputs)._replace(rate=rate)
        return Embedded(*self.placed(inputs))


@checked
def SplitModel(
    points: Points,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray | None = None,
    channels: PositiveInt | None = None,
    output_channels: PositiveInt | None = None,
    grid: Grid = "periodic",
    statistics: Statistics | None = None,
    output_statistics: Statistics | None = None,
    duration: PositiveFloat = 1.0,
) -> Model[FunctionInputs, FunctionValues]:
    """The flow of an equation over a time Δt, `u(·, t) ↦ u(·, t + Δt)`. The state is the
    function itself, without an embedding. So an operator with a known flow, such as
    `ConstantCoefficients`, is solved exactly. The model conserves everything that its operators
    conserve.

    Depth is time: the equation is solved over `duration`, the Δt of the data, with the layers
    of the control as steps. `Timed` inputs are solved over their own time.

    **Arguments:** see `OperatorModel`, and

    - `features`: `channels`, or 1.
    - `control`: intervals of length 1 become `duration / layers`; other lengths stay.
    - `statistics`: of the state, and so of the outputs. Means are subtracted only if u and
      `u - mean` solve the same equation: without a constraint, and if each linear operator maps
      constants to 0, as `ConstantCoefficients` does without damping.
    - `output_statistics`, `key`: ignored, for configurations.

    **Raises:** `InputError` if `features` or `output_channels` differ from `channels`, as with
    inputs that are constant in time.
    """
    num_channels = channels or 1
    if features != num_channels or (output_channels or num_channels) != num_channels:
        raise InputError(
            f"SplitModel: features={features}, channels={channels}, output_channels="
            f"{output_channels}; the state is the function, so set model.width={num_channels}, "
            "and use data without parameters or constant functions."
        )
    if control.interval_length == 1:
        length = duration / control.layers
        control = dataclasses.replace(control, interval_length=length)
    if statistics is not None and not _ignores_mean(control, constraint):
        statistics = tuple((0.0, scale) for _, scale in statistics)
    inputs = StateInputs(
        points,
        channels=channels,
        modes=0,
        grid=grid,
        statistics=statistics,
        duration=duration,
        outputs=num_channels,
    )
    read_out = NetworkValues(
        channels=channels is not None, statistics=statistics, outputs=num_channels
    )
    return Model(inputs, control, constraint, read_out, solver=solver, mesh=mesh)


def _ignores_mean(
    control: AbstractControl, constraint: AbstractConstraint | AbstractControl
) -> bool:
    """Whether the sum of a solution and a constant is always a solution."""
    constraints = parts(constraint, AbstractConstraint)
    linear = parts(control, AbstractLinearOperator)
    are_undamped = all(isinstance(x, ConstantCoefficients) and not x.damped for x in linear)
    return are_undamped and all(isinstance(x, Free) for x in constraints)


_NETWORKS: dict[str, Any] = {"fno": FNO, "resnet": Resnet, "unet": Unet}


@checked
class GridNetwork(AbstractOperator):
    """A network B of pdequinox as the learned part of an equation on a periodic grid,

        u_t = s B(u).

    It is a baseline for `LocalFlux`.

    **Arguments:**

    - `features`: the features of the state.
    - `network`: the kind of B.
    - `dimension`: the dimension of the grid.
    - `scale`: s. With 1/Δt, B is about the change over Δt.
    - `options`: options of B, see `FNO`, `Resnet` and `Unet`.

    **Raises:** `InputError` without pdequinox, and for grids that do not fit B.
    """

    rate: NetworkRate
    scale: float = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        network: Literal["fno", "resnet", "unet"] = "resnet",
        dimension: Dimension = 1,
        scale: PositiveFloat = 1.0,
        options: dict[str, Any] | None = None,
    ):
        # The points only limit the numbers of modes and levels.
        points = (64,) * dimension
        model = _NETWORKS[network](
            points, key=key, channels=features, modes=0, **(options or {})
        )
        self.rate = model.control(0.0)[0]
        self.scale = scale

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.rate.inputs)
        return self.scale * self.rate.apply_network(u, domain)
