"""Reads the parts of a run that do not depend on its data."""

from collections.abc import Callable
from typing import NamedTuple

from ...dynamics import AbstractCost
from ...errors import at, short
from ...integration import AbstractGradient
from ...models import Model
from ..configuration.config import Config
from ..configuration.reader import read
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

    def first_model(self, config: Config, build: Callable[[Config], Model]) -> Model:
        """The model with which a run begins. Its weights are drawn for the first phase, since
        the mean of the draws of several layers would be small."""
        model = build(config)
        if self.layers is None:
            return model
        with at(f"training.schedule: layers={self.layers}"):
            coarse = self.growth.coarse(model, self.layers)
        if not self.growth.averages or weight_shapes(coarse) == weight_shapes(model):
            return coarse
        return build(config.on_layers(self.layers))

    def programs(self, model: Model) -> Programs:
        """The programs of a run from its `first_model`."""
        return make_programs(model, self.schedule, self.growth, self.rule)


def read_parts(config: Config) -> RunParts:
    """Reads the parts of a run that do not depend on its data."""
    training = config.training
    optimizer = build_optimizer(config.optimizer, training.steps)
    return RunParts(
        layers=training.phases[0].layers,
        schedule=schedule_of(config),
        gradient=read(AbstractGradient, training.gradient, "training.gradient"),
        growth=read(AbstractGrowth, training.growth, "training.growth"),
        rule=UpdateRule(
            optimizer, training.average, training.accumulate, training.max_bad_steps
        ),
        costs={
            name: read(AbstractCost, cost.description(name), f"training.costs.{short(name)}")
            for name, cost in training.costs.items()
        },
    )
