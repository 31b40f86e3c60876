"""Published rules by which a model gets more layers during a run. The layers keep their step
size h = 1, so that the depth T grows, unlike in `Refinement`.

training:
  growth: stacked
  schedule: [{until: 50%, mesh: {layers: 2}}, {mesh: {layers: 8}}]
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.equation import AbstractControl, PiecewiseConstant, Tied
from ide_transformer.errors import InputError
from ide_transformer.models import Model
from ide_transformer.training import AbstractGrowth


# The maps at the end of operators: of attention, and of the feed-forward.
_OUTPUTS = {"output", "outer"}


class AbstractLayerGrowth(AbstractGrowth):
    """A rule that takes whole layers. Of several equations the last one grows."""

    @abc.abstractmethod
    def rows(self, before: int, after: int) -> Sequence[int | None]:
        """For each layer of the larger model the layer that it copies; `None` for a new one."""

    def coarse(self, model: Model, layers: int) -> Model:
        return _with_layers(model, range(layers), model)

    def grown(self, model: Model, layers: int, draw: Callable[[], Model]) -> Model:
        rows = self.rows(model.layers, layers)
        fresh = self.prepared(draw()) if None in rows else model
        return _with_layers(model, rows, fresh)

    def prepared(self, fresh: Model) -> Model:
        """The model from which new layers are taken."""
        return fresh


class Stacked(AbstractLayerGrowth):
    """Copies of the whole stack of layers: 1, 2 becomes 1, 2, 1, 2.

    Reference: G_stack, Du et al., NeurIPS 2024, arXiv 2405.15319.
    """

    def rows(self, before: int, after: int) -> list[int | None]:
        if after % before:
            raise InputError(
                f"stacked: {before} layers become a multiple of them, not {after}."
            )
        return [row % before for row in range(after)]


@checked
class MiddleRepeated(AbstractLayerGrowth):
    """Copies the block in the middle again and again: 1, 2, 3 becomes 1, 2, 2, 3. A block has
    `block` layers.

    Reference: MIDAS, Saunshi et al., NeurIPS 2024, arXiv 2409.19044.
    """

    block: PositiveInt = eqx.field(static=True, default=1)

    def rows(self, before: int, after: int) -> list[int | None]:
        if before % self.block or after % self.block:
            raise InputError(
                f"middle_repeated: blocks of {self.block} layers do not divide {before} and "
                f"{after} layers."
            )
        blocks = [[*x] for x in np.arange(before).reshape(-1, self.block).tolist()]
        while len(blocks) * self.block < after:
            middle = (len(blocks) - 1) // 2
            blocks.insert(middle, blocks[middle])
        return [row for block in blocks for row in block]


@checked
class NewLayers(AbstractLayerGrowth):
    """New layers behind the old ones.

    **Arguments:**

    - `outputs`: whether they have the weights that a new model draws ("drawn"), or output
      matrices of 0, so that the function of the model does not change at first ("zero").

    Reference: Bu, 2025, arXiv 2511.04981.
    """

    outputs: Literal["drawn", "zero"] = eqx.field(static=True, default="drawn")

    def rows(self, before: int, after: int) -> list[int | None]:
        return [*range(before), *[None] * (after - before)]

    def prepared(self, fresh: Model) -> Model:
        if self.outputs == "drawn":
            return fresh

        def zero(path: tuple, x):
            output = any(getattr(part, "name", "") in _OUTPUTS for part in path)
            return jnp.zeros_like(x) if output and eqx.is_array(x) else x

        control = jax.tree.map_with_path(zero, fresh.control)
        return dataclasses.replace(fresh, control=control)


def _with_layers(model: Model, rows: Sequence[int | None], fresh: Model) -> Model:
    """The model with the layers `rows` of its own; for `None` the same layer of `fresh`."""

    def change(control: AbstractControl, new: AbstractControl) -> AbstractControl:
        length = control.interval_length
        if isinstance(control, Tied):
            return Tied(control.block, len(rows), length)
        if not isinstance(control, PiecewiseConstant) or not isinstance(new, PiecewiseConstant):
            raise InputError(
                f"{type(control).__name__} has no layers of their own; write "
                "control.kind=piecewise_constant, or training.growth=refinement."
            )

        def taken(x: PyTree, y: PyTree) -> PyTree:
            if not eqx.is_array(x):
                return x
            each = [y[i] if row is None else x[row] for i, row in enumerate(rows)]
            return jnp.stack(each)

        return PiecewiseConstant(jax.tree.map(taken, control.blocks, new.blocks), length)

    return dataclasses.replace(
        model,
        control=change(model.control, fresh.control),
        constraint=change(model.constraint, fresh.constraint),
    )
