"""Growth by stacking: a model gets copies of its layers during a run. Layers keep their step
size h = 1, so unlike in `Refinement` the depth T grows.

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
    """Repeats the stack of layers: 1, 2 becomes 1, 2, 1, 2. Of several equations the last one
    grows.

    Reference: G_stack, Du et al., NeurIPS 2024, arXiv 2405.15319.
    """

    def coarse(self, model: Model, layers: int) -> Model:
        return _with_layers(model, range(layers))

    def grown(self, model: Model, layers: int) -> Model:
        before = model.layers
        if layers % before:
            raise InputError(f"stacked: {layers} layers must be a multiple of {before}.")
        return _with_layers(model, [layer % before for layer in range(layers)])


def _with_layers(model: Model, layers: Sequence[int]) -> Model:
    """The model with these of its layers."""
    index = jnp.array(layers)

    def change(control: AbstractControl) -> AbstractControl:
        length = control.interval_length
        if isinstance(control, Tied):
            return Tied(control.block, len(layers), length)
        if not isinstance(control, PiecewiseConstant):
            raise InputError(
                f"stacked: {type(control).__name__} has no separate layers; set "
                "control.kind=piecewise_constant, or training.growth=refinement."
            )
        blocks = jax.tree.map(lambda x: x[index] if eqx.is_array(x) else x, control.blocks)
        return PiecewiseConstant(blocks, length)

    return dataclasses.replace(
        model, control=change(model.control), constraint=change(model.constraint)
    )
