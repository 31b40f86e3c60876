"""A published rule by which a model gets more layers during a run. The layers keep their step
size h = 1, so that the depth T grows, unlike in `Refinement`.

training:
  growth: stacked
  schedule: [{until: 50%, mesh: {layers: 2}}, {mesh: {layers: 8}}]
"""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp

from ide_transformer.equation import AbstractControl, PiecewiseConstant, Tied
from ide_transformer.errors import InputError
from ide_transformer.models import Model
from ide_transformer.training import AbstractGrowth


class Stacked(AbstractGrowth):
    """Copies of the whole stack of layers: 1, 2 becomes 1, 2, 1, 2. Of several equations the
    last one grows.

    Reference: G_stack, Du et al., NeurIPS 2024, arXiv 2405.15319.
    """

    def coarse(self, model: Model, layers: int) -> Model:
        return _with_layers(model, range(layers))

    def grown(self, model: Model, layers: int) -> Model:
        before = model.layers
        if layers % before:
            raise InputError(
                f"stacked: {before} layers become a multiple of them, not {layers}."
            )
        return _with_layers(model, [row % before for row in range(layers)])


def _with_layers(model: Model, rows: Sequence[int]) -> Model:
    """The model with these of its layers."""
    index = jnp.array(rows)

    def change(control: AbstractControl) -> AbstractControl:
        length = control.interval_length
        if isinstance(control, Tied):
            return Tied(control.block, len(rows), length)
        if not isinstance(control, PiecewiseConstant):
            raise InputError(
                f"{type(control).__name__} has no layers of their own; write "
                "control.kind=piecewise_constant, or training.growth=refinement."
            )
        blocks = jax.tree.map(lambda x: x[index] if eqx.is_array(x) else x, control.blocks)
        return PiecewiseConstant(blocks, length)

    return dataclasses.replace(
        model, control=change(model.control), constraint=change(model.constraint)
    )
