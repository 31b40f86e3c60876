"""Neighbours on a grid of tokens."""

import functools as ft
import itertools
import math
from collections.abc import Iterator
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...arguments import at_least, at_most
from ...errors import InputError
from ..arrays import State
from ..domain import TokenDomain, grid_of
from ..rules import lagrange


# The dimension of a grid of tokens.
Dimension = Annotated[int, at_least(1), at_most(3)]


def on_grid(operator: object, u: State, domain: TokenDomain) -> Float[Array, "..."]:
    """Reshapes a state to `[..., *grid, features]`."""
    grid = grid_of(type(operator).__name__, domain)
    return u.reshape(*u.shape[:-2], *grid, u.shape[-1])


def is_periodic(operator: object, domain: TokenDomain) -> bool:
    """Whether all axes are periodic. Raises `InputError` if only some are."""
    if domain.period is not None and None in domain.period:
        raise InputError(
            f"{type(operator).__name__}: period={domain.period}; all axes must have a period, "
            "or none."
        )
    return domain.period is not None


def check_axes(operator: object, axes: int, domain: TokenDomain, *, periodic=False) -> None:
    """Raises `InputError` unless the domain has `axes` axes, and is periodic if `periodic`."""
    if axes != domain.dimension or (periodic and not is_periodic(operator, domain)):
        constructor = "periodic" if periodic else "uniform"
        raise InputError(
            f"{type(operator).__name__} needs a TokenDomain.{constructor} of dimension {axes}, "
            f"got dimension {domain.dimension} and period={domain.period}."
        )


def grid_axes(domain: TokenDomain) -> tuple[int, ...]:
    """The axes of the grid in the result of `on_grid`, counted from the end."""
    return tuple(range(-1 - domain.dimension, -1))


def shifted(
    v: Float[Array, "..."],
    width: int,
    before: int,
    hops: tuple[float, ...],
    *,
    periodic: bool,
    stride: int = 1,
    causal: bool = False,
) -> Iterator[Float[Array, "..."]]:
    """Yields the states of each neighbour of every `stride`-th point. Along each axis there are
    `width` neighbours, `before` of them before the point, `hop` points apart. Between points a
    cubic interpolates, through earlier points if `causal`. Beyond a boundary states are 0."""
    grid = v.shape[-1 - len(hops) : -1]
    stencils = [[_stencil((k - before) * hop, causal) for k in range(width)] for hop in hops]
    first = [-min(min(stencil) for stencil in along) for along in stencils]
    last = [max(max(stencil) for stencil in along) for along in stencils]
    padding = [(0, 0)] * (v.ndim - 1 - len(hops))
    padding += [*zip(first, np.maximum(last, 0), strict=True), (0, 0)]
    wide = jnp.pad(v, padding, mode="wrap" if periodic else "constant")
    for neighbour in itertools.product(*stencils):
        terms = []
        for places in itertools.product(*neighbour):
            ends = zip(places, first, grid, strict=True)
            part = [slice(a + k, a + k + n, stride) for k, a, n in ends]
            factor = math.prod(x[k] for x, k in zip(neighbour, places, strict=True))
            state = wide[(..., *part, slice(None))]
            terms.append(state if factor == 1 else factor * state)
        yield ft.reduce(jnp.add, terms)


def _stencil(distance: float, causal: bool) -> dict[int, float]:
    """The factors that interpolate a function `distance` points away, by offset."""
    nearest = round(distance)
    if abs(distance - nearest) < 1e-5:
        return {nearest: 1.0}
    points = math.floor(distance) + np.arange(-1, 3)
    if causal:
        points -= max(points[-1], 0)
    factors = lagrange(points.astype(float), distance)
    return dict(zip(points.tolist(), factors.tolist(), strict=True))
