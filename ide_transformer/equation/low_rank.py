"""Low-rank changes of linear maps (LoRA), for training a pretrained model further."""

import itertools
from collections.abc import Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..arguments import PositiveFloat, PositiveInt, checked
from ..errors import InputError
from .controls.control import AbstractControl, PiecewiseConstant, Tied
from .function_space import FeatureMap
from .operators.feed_forward import Linear, product
from .tree import map_parts, parts, with_fields


Tree = TypeVar("Tree", bound=PyTree)


@checked
class LowRank(eqx.Module):
    """A frozen linear map with a learned change of rank r,

        u ↦ u W + b + (α/r) (u A) B,   A: [in, r],  B: [r, out].

    Training a model with such maps changes A and B only. Source: Hu et al., arXiv 2106.09685.

    **Arguments:** `linear`, the map with W and b; `down` A, `up` B, and `alpha` α.
    """

    linear: Linear
    down: Float[Array, "*depth in rank"]
    up: Float[Array, "*depth rank out"]
    alpha: PositiveFloat = eqx.field(static=True)

    @property
    def factor(self) -> float:
        """α/r."""
        return self.alpha / self.down.shape[-1]

    @property
    def weight(self) -> Float[Array, "*depth in out"]:
        """`W + (α/r) A B`, for all layers at once."""
        return self.linear.weight + self.factor * (self.down @ self.up)

    @property
    def bias(self) -> Float[Array, "*depth out"] | None:
        return self.linear.bias

    def at_points(self, into: FeatureMap, out: FeatureMap) -> "LowRank":
        """The integral of `Linear.at_points`: A reads functions of `into`, B makes functions of
        `out`."""
        return with_fields(
            self,
            linear=self.linear.at_points(into, out),
            down=into.of_duals(self.down.T).T,
            up=out.of_values(self.up),
        )

    def times(self, factor: float) -> "LowRank":
        """The map with outputs multiplied by `factor`."""
        return with_fields(self, linear=self.linear.times(factor), up=factor * self.up)

    def __call__(self, u: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return self.linear(u) + self.factor * product(product(u, self.down), self.up)


@checked
def with_low_rank(
    model: Tree,
    rank: PositiveInt = 8,
    alpha: PositiveFloat = 16.0,
    targets: Sequence[str] = ("query", "value"),
    *,
    key: PRNGKeyArray,
) -> Tree:
    """Replaces the linear maps named in `targets` by `LowRank` maps. A is uniform on `±1/√in`
    and B is 0, so the outputs do not change.

    **Raises:** `InputError` if no map has one of these names, or if the model has low-rank
    changes already.
    """
    if parts(model, LowRank):
        raise InputError(
            "The model has low-rank changes already; use merge_low_rank(model) first."
        )

    def is_map(x):
        return isinstance(x, Linear)

    def name(path):
        return getattr(path[-1], "name", "")

    leaves = jax.tree.leaves_with_path(model, is_leaf=is_map)
    names = sorted({name(path) for path, part in leaves if is_map(part)} - {""})
    if unknown := [x for x in targets if x not in names]:
        raise InputError(
            f"targets: no linear map is named {unknown[0]!r}; use {', '.join(names)}."
        )
    counter = itertools.count()

    def change(path, part):
        if not is_map(part) or name(path) not in targets:
            return part
        *depth, width, out = part.weight.shape
        dtype = part.weight.dtype
        map_key = jax.random.fold_in(key, next(counter))
        bound = width**-0.5
        down = jax.random.uniform(map_key, (*depth, width, rank), dtype, -bound, bound)
        return LowRank(part, down, jnp.zeros((*depth, rank, out), dtype), alpha)

    return jax.tree.map_with_path(change, model, is_leaf=is_map)


@checked
def merge_low_rank(model: Tree) -> Tree:
    """Replaces each `LowRank` by a `Linear` with the matrix `W + (α/r) A B`.

    **Raises:** `InputError` if the weights are not one matrix per layer. In an expansion in
    depth, products of A(t) and B(t) have other terms.
    """
    for control in parts(model, AbstractControl):
        if parts(control, LowRank) and not isinstance(control, PiecewiseConstant | Tied):
            kind = type(control).__name__
            raise InputError(f"{kind}: its low-rank changes cannot be merged; keep them.")
    return map_parts(model, LowRank, lambda x, _: with_fields(x.linear, weight=x.weight))


def without_low_rank(model: Tree) -> Tree:
    """Replaces each `LowRank` by its frozen map."""
    return map_parts(model, LowRank, lambda x, _: x.linear)


def partition_weights(weights: Tree) -> tuple[Tree, Tree]:
    """Splits weights into trained and frozen ones, with `None` in place of the others. With
    `LowRank` maps only A and B are trained, otherwise all weights."""
    if not parts(weights, LowRank):
        return eqx.partition(weights, True)

    def mark(part):
        if not isinstance(part, LowRank):
            return False
        frozen = jax.tree.map(lambda _: False, part.linear)
        return with_fields(jax.tree.map(lambda _: True, part), linear=frozen)

    is_trained = jax.tree.map(mark, weights, is_leaf=lambda x: isinstance(x, LowRank))
    return eqx.partition(weights, is_trained)
