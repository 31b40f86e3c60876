"""Places of the weights of a model in a checkpoint: one table serves both directions."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from ..equation import AbstractControl, Linear, PiecewiseConstant, Tied
from ..errors import InputError


class Placement(NamedTuple):
    """A weight of a model and its place in a checkpoint,

        weight = scale · tensor[permuted by axes][..., rows] + shift.

    - `weight`: the array itself, recognised by its identity; `None` where the model lacks it.
    - `name`: the name of the tensor. With `{layer}` in it the weight has a leading axis over
      layers, and each layer is a tensor.
    - `axes`: the order of the axes of the tensor; afterwards it is reshaped to the weight.
    - `shape`: the shape of the permuted tensor, where that of the weight is another one.
    - `rows`: the outputs, along the last axis, that the weight takes from a tensor which
      several weights share.
    - `repeated`: whether all layers of the weight are the same tensor.
    """

    weight: Any
    name: str
    axes: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    rows: np.ndarray | None = None
    repeated: bool = False
    scale: float = 1.0
    shift: float = 0.0

    @property
    def layered(self) -> bool:
        return self.repeated or "{layer}" in self.name

    def names(self) -> list[str]:
        """The names of its tensors, in the order of layers."""
        layers = self.weight.shape[0] if self.layered else 1
        return [self.name.format(layer=layer) for layer in range(layers)]

    def permuted_shape(self, outputs: int) -> tuple[int, ...]:
        """The shape of a tensor after its axes are permuted.

        **Arguments:**

        - `outputs`: the length of the last axis of a shared tensor.
        """
        if self.shape is not None:
            return self.shape
        shape = tuple(self.weight.shape)[self.layered :]
        return shape if self.rows is None else (*shape[:-1], outputs)

    def taken_from(self, tensor: np.ndarray) -> np.ndarray:
        """The part of the weight that is in one tensor."""
        x = tensor if self.axes is None else tensor.transpose(self.axes)
        x = x if self.rows is None else x[..., self.rows]
        return x.reshape(tuple(self.weight.shape)[self.layered :])


def block(control: AbstractControl) -> Any:
    """The operators or constraints that a control stores: stacked over layers, or, of a tied
    control, those of all layers."""
    match control:
        case PiecewiseConstant():
            return control.blocks
        case Tied():
            return control.block
    raise InputError(
        f"The weights of the model are a {type(control).__name__} over depth, but a checkpoint "
        "holds ordinary layers (PiecewiseConstant) or one block for all layers (Tied)."
    )


def linear(
    part: Linear | None,
    name: str,
    *,
    transposed: bool = True,
    rows: np.ndarray | None = None,
    scale: float = 1.0,
) -> Iterator[Placement]:
    """The weight and bias of a linear map. PyTorch stores `[out, in]`; `transposed=False` is
    for `[in, out]`."""
    if part is not None:
        axes = (1, 0) if transposed else None
        yield Placement(part.weight, f"{name}.weight", axes, rows=rows, scale=scale)
        yield Placement(part.bias, f"{name}.bias", rows=rows, scale=scale)


def linears(module: eqx.Module, below: str, **names: str) -> Iterator[Placement]:
    """The linear maps of an operator or a head, as far as it has them.

    **Arguments:**

    - `below`: the part of the name that all of them begin with.
    - `names`: the rest of the name of each map, by its attribute: `query="q_proj"`.
    """
    for attribute, name in names.items():
        yield from linear(getattr(module, attribute, None), f"{below}.{name}")


def fused(
    parts: Sequence[Linear], name: str, *, groups: int = 1, transposed: bool = True
) -> Iterator[Placement]:
    """Linear maps of equal size that share a tensor: their outputs follow one another, as a
    whole or inside each of several groups."""
    outputs = np.arange(len(parts) * parts[0].weight.shape[-1])
    rows = outputs.reshape(groups, len(parts), -1)
    for index, part in enumerate(parts):
        own = rows[:, index].reshape(-1)
        yield from linear(part, name, transposed=transposed, rows=own)


def neighbours_to_halves(heads: int, head_features: int, turning: int) -> np.ndarray:
    """The order of the rows of queries or keys that puts rotary pairs half a width apart, as
    in `Rotary`, where the tensor has them as neighbours.

    **Arguments:**

    - `turning`: how many features of a head have rotary positions.
    """
    first = [*range(0, turning, 2), *range(1, turning, 2), *range(turning, head_features)]
    starts = head_features * np.arange(heads)[:, None]
    return (starts + np.array(first)).reshape(-1)


def norm(part: eqx.Module, name: str, *, shift: float = 0.0) -> Iterator[Placement]:
    """The gain and bias of a normalisation, or another part with such, as far as it has them;
    the gain is `shift + tensor`."""
    yield Placement(getattr(part, "gain", None), f"{name}.weight", shift=shift)
    yield Placement(getattr(part, "bias", None), f"{name}.bias")
