"""Models whose state is the function itself, so that operators keep their meaning, and networks
of pdequinox as one of the operators."""

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
    """The state at depth 0 is the function itself, in standard deviations with `statistics`:
    `u(x, 0) = a(x)`. There are no weights."""

    @property
    def features(self) -> int:
        return self.given

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
    `ConstantCoefficients`, is solved exactly, and what operators conserve is conserved.

    Depth is time: the equation is solved over `duration`, Δt of the data, in steps of the
    control's layers. `Timed` inputs are solved over their own time.

    **Arguments:** see `OperatorModel`, and

    - `features`: `channels`, or 1.
    - `control`: intervals of length 1 become `duration / layers`; others stay.
    - `statistics`: of the state, and so of the outputs too. The means are subtracted only
      where u and `u - mean` solve one equation: without a constraint, and if each linear
      operator maps constants to 0, as `ConstantCoefficients` does without damping.
    - `output_statistics`: for configurations; the state is in one unit.
    - `key`: for configurations; there is nothing to draw.

    **Raises:** `InputError` if the state has other features than the function has channels, or
    if inputs have channels that are constant in time.
    """
    several = channels or 1
    if features != several or (output_channels or several) != several:
        raise InputError(
            f"SplitModel: features={features}, channels={channels}, output_channels="
            f"{output_channels}; the state is the function: write model.width={several}, and "
            "give no parameters or constant functions."
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
        outputs=several,
    )
    read_out = NetworkValues(
        channels=channels is not None, statistics=statistics, outputs=several
    )
    return Model(inputs, control, constraint, read_out, solver=solver, mesh=mesh)


def _ignores_mean(
    control: AbstractControl, constraint: AbstractConstraint | AbstractControl
) -> bool:
    """Whether constants may be added to a solution."""
    sets = parts(constraint, AbstractConstraint)
    linear = parts(control, AbstractLinearOperator)
    undamped = [isinstance(x, ConstantCoefficients) and not x.damped for x in linear]
    return all(undamped) and all(isinstance(x, Free) for x in sets)


_NETWORKS: dict[str, Any] = {"fno": FNO, "resnet": Resnet, "unet": Unet}


@checked
class GridNetwork(AbstractOperator):
    """A network B of pdequinox as the learned part of an equation on a periodic grid,

        u_t = s B(u).

    It is the control for a `LocalFlux` beside the same linear part.

    **Arguments:**

    - `features`, `dimension`: of the state, and of the grid.
    - `network`, `options`: the kind, and its options, see `FNO`, `Resnet` and `Unet`.
    - `scale`: s. With 1/Δt, B is about the change over Δt.

    **Raises:** `InputError` without pdequinox, and for points that B does not take.
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
        # The points only bound the numbers of modes and of levels.
        points = (64,) * dimension
        model = _NETWORKS[network](
            points, key=key, channels=features, modes=0, **(options or {})
        )
        self.rate = model.control(0.0)[0]
        self.scale = scale

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.rate.inputs)
        return self.scale * self.rate.applied(u, domain)
