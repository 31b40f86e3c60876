"""Models of several stages."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from ..errors import InputError
from ..models import ImageInputs, Model, StagedModel
from .config import Config
from .sizes import check_steps


def staged_model(
    config: Config,
    sizes: Mapping[str, Any],
    key: PRNGKeyArray,
    build: Callable[[Config, Mapping[str, Any], PRNGKeyArray], Model],
) -> Model:
    """The model of `model.stages`.

    **Arguments:**

    - `sizes`: see `build_model_of_size`; the last stage alone reads `classes` out.
    - `build`: makes a model of one equation.

    **Raises:** `InputError` that begins with the key of a stage.
    """
    stages: list[Any] = []
    keys, given = jax.random.split(key, len(config.model.stages)), {**sizes, "classes": None}
    for number, own_key in enumerate(keys):
        own = config.stage(number)
        if number == len(keys) - 1:
            given["classes"] = sizes.get("classes")
        try:
            check_steps(own.model.depth, own.solver)
            stage = build(own, given, own_key)
            if not isinstance(stage.inputs, ImageInputs):
                raise InputError(
                    f"model.kind={own.model.kind}: it cannot be followed by another stage; "
                    "take model.kind=image_stage."
                )
            given["image_shape"] = (*stage.inputs.grid, stage.features)
        except InputError as error:
            raise InputError(f"model.stages.{number}: {error}") from None
        stages.append(stage)
    return StagedModel(tuple(stages))
