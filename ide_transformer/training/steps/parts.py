"""Makes and checks the parts of a run that do not depend on its data."""

import contextlib
import functools as ft
from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import PRNGKeyArray

from ...dynamics import AbstractCost
from ...errors import at
from ...integration import AbstractGradient
from ...models import Model
from ..configuration.config import Config
from .build import needs_of
from .equations import build_without_data
from .growth import AbstractGrowth
from .optimizer import build_optimizer
from .programs import Programs, UpdateRule, make_programs, weight_shapes
from .schedule import Schedule, schedule_of


class RunParts(NamedTuple):
    """The parts of a run that do not depend on its data.

    - `layers`: the layers with which the model begins; `None` for all.
    - `gradient`: the gradient mode of the model.
    - `growth`: how the model gets the layers of a later phase.
    - `costs`: the running costs in the objective, by name.
    """

    layers: int | None
    schedule: Schedule
    gradient: AbstractGradient
    growth: AbstractGrowth
    rule: UpdateRule
    costs: dict[str, AbstractCost]

    def first_model(self, build: Callable[[int | None], Model]) -> Model:
        """The model with which a run begins. Its weights are drawn for the first phase, since
        the mean of the draws of several layers would be small. `build` makes the model on a
        number of layers, by default its own."""
        model = build(None)
        if self.layers is None:
            return model
        with at(self.schedule[0].key):
            coarse = self.growth.coarse(model, self.layers)
        if not self.growth.averages or weight_shapes(coarse) == weight_shapes(model):
            return coarse
        return build(self.layers)

    def programs(self, model: Model) -> Programs:
        """The programs of a run from its `first_model`."""
        return make_programs(model, self.schedule, self.growth, self.rule)


def read_parts(config: Config) -> RunParts:
    """Makes the parts of a run that do not depend on its data."""
    training = config.training
    optimizer = build_optimizer(config.optimizer, training.steps)
    return RunParts(
        layers=training.phases[0].layers,
        schedule=schedule_of(config),
        gradient=training.gradient.make(),
        growth=training.growth.make(),
        rule=UpdateRule(
            optimizer, training.average, training.accumulate, training.max_bad_steps
        ),
        costs={name: cost.spec.make() for name, cost in training.costs.items()},
    )


def check_equations(config: Config) -> None:
    """Builds the equations of a run from shapes, on the layers of each phase, with the state of
    the optimizer. Reads no data.

    **Raises:** `InputError` for a kind of model that cannot learn the data, arguments of
    operators, controls and schemes that do not fit,
    layers that the model cannot grow to, and groups of rates that name no weight.
    """
    if config.model.pretrained is not None:
        return
    # Groups of inputs and read-outs name weights that depend on the data.
    groups = {
        name: factor
        for name, factor in config.optimizer.groups.items()
        if name.partition(".")[0] in ("control", "constraint", "solver")
    }
    parts = read_parts(config.changed("optimizer", groups=groups))
    needs = needs_of(config, {})

    def check(key: PRNGKeyArray) -> None:
        for equation in config.equations:
            needs.check_kind(equation.model)
            build = ft.partial(build_without_data, equation, needs.causal, key)
            parts.programs(parts.first_model(build))

    # A class that reads the values of its arrays is checked when the model is built.
    unreadable = jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError
    with contextlib.suppress(*unreadable):
        jax.eval_shape(check, jax.random.key(0))
