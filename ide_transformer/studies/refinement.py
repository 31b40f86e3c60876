"""The cost of runs that begin on a coarse mesh in depth, and what such a run needs."""

from ..errors import InputError
from ..reporting import Row
from ..training import Config, build_task, validated
from ..training.config import Moment, refinements
from .schemes.budget import Budget, field_evaluations, seconds_of_a_run


# The moment at which a run is refined: half of its steps, while the rate is high, see
# docs/results/coarse_first.md.
_MOMENT = 0.5


def plan_refinement(config: Config, budget: Budget) -> list[Row]:
    """The runs that a budget of one amount allows, with `model.depth` layers from the start and
    with one or two layers before: the overrides that make each, its field evaluations, and its
    seconds on this machine, which are measured."""
    depth = config.model.depth
    coarse = [first for first in (1, 2) if first < depth and depth % first == 0]
    if not coarse:
        raise InputError(
            f"model.depth={depth}: no coarser mesh is there; give a depth of 2 or more."
        )
    task, rows = build_task(config), []
    for refine in ({}, *({0: first, _MOMENT: depth} for first in coarse)):
        planned = _refined(config, refine)
        steps = budget.steps(planned, task)
        planned = planned.changed("training", steps=steps)
        given = refinements(planned.training.refine)
        rows.append(
            {
                "overrides": f"training.steps={steps} training.refine='{given}'",
                "field_evaluations": round(steps * field_evaluations(planned, task)),
                "seconds": round(seconds_of_a_run(planned, task)),
            }
        )
    return rows


def missing(config: Config) -> list[str]:
    """Overrides without which a coarse mesh is of no use, where the configuration has others:
    the rate has to be high when the fine mesh comes, and on both meshes the weights have to
    have solutions that are close to each other."""
    wanted = {
        "optimizer.schedule=warmup_stable_decay": config.optimizer.schedule == "cosine",
        "model.input_normalization=sphere": config.model.input_normalization.kind == "free",
        "training.costs.transport=0.01": "transport" not in config.training.costs,
    }
    return [override for override, absent in wanted.items() if absent]


def _refined(config: Config, refine: dict[Moment, int]) -> Config:
    # What was not set keeps the default that goes with a refinement.
    tree = config.model_dump(mode="json", exclude_unset=True)
    tree["training"] = {**tree.get("training", {}), "refine": refine}
    return validated(Config, tree, f"training.refine={refine}")
