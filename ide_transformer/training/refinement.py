"""Progressive depth: the models on the meshes of `training.refine`."""

from collections.abc import Callable

import equinox as eqx
import jax

from ..errors import InputError
from ..models import Mesh, Model
from .config import Config


def first_model(config: Config, build: Callable[[Config], Model]) -> Model:
    """The model with which a run begins: that of the configuration, on the first mesh of
    `training.refine`.

    Weights that do not depend on the mesh are those drawn for `model.depth`. Layers are drawn
    for the first mesh, since the mean of several draws would be small.
    """
    model = build(config)
    if not config.training.refine:
        return model
    depth = config.training.refine[0]
    first = _with_intervals(config, model, depth)
    if _weight_shapes(first) == _weight_shapes(model):
        return first
    horizon = config.control.horizon or float(config.model.depth)
    sections = {
        "model": config.model.model_copy(update={"depth": depth}),
        "control": config.control.model_copy(update={"horizon": horizon}),
    }
    return build(config.model_copy(update=sections))


def next_model(config: Config, model: Model, intervals: int) -> Model:
    """The model on the next mesh of `training.refine`.

    **Raises:** `InputError` where the control has no such mesh, or one that would change layers
    and not only divide them.
    """
    before = model.control.num_intervals
    new = _with_intervals(config, model, intervals)
    if intervals % before and _weight_shapes(new) != _weight_shapes(model):
        raise InputError(
            f"training.refine={config.training.refine}: {before} intervals of "
            f"{type(model.control).__name__} are not divided by {intervals} into equal parts; "
            f"take a multiple, such as {2 * before}."
        )
    return new


def _with_intervals(config: Config, model: Model, intervals: int) -> Model:
    try:
        return model.on(Mesh(intervals=intervals))
    except InputError as error:
        raise InputError(f"training.refine={config.training.refine}: {error}") from None


def _weight_shapes(model: Model) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]
