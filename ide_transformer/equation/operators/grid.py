"""States on the points of a grid."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ..arrays import State
from ..domain import TokenDomain, grid_of


def on_grid(operator: object, u: State, domain: TokenDomain) -> Float[Array, "..."]:
    """The state with an axis for each axis of the grid, `[..., *grid, features]`."""
    grid = grid_of(type(operator).__name__, domain)
    return u.reshape(*u.shape[:-2], *grid, u.shape[-1])


def goes_around(operator: str, domain: TokenDomain) -> bool:
    """Whether a grid is one of a torus, without boundaries."""
    if domain.period is not None and None in domain.period:
        raise InputError(
            f"{operator} is for grids that have boundaries along all axes or along none, but "
            f"this TokenDomain has period={domain.period}. Take it away, "
            "dataclasses.replace(domain, period=None), where boundaries on all sides will do."
        )
    return domain.period is not None


def grid_axes(domain: TokenDomain) -> tuple[int, ...]:
    """The axes of the grid in what `on_grid` gives, from the end."""
    return tuple(range(-1 - domain.dimension, -1))


def wave_numbers(domain: TokenDomain) -> tuple[np.ndarray, ...]:
    """Along each axis those of the eigenfunctions of the Laplacian: `π j / L` of cosines, whose
    slope is zero at the boundaries, and `2π j / L` of the waves around a periodic domain."""
    assert domain.grid is not None
    around = goes_around("An expansion in waves", domain)
    along = (
        2 * np.pi * np.fft.fftfreq(n, step) if around else np.pi * np.arange(n) / (n * step)
        for n, step in zip(domain.grid, domain.steps, strict=True)
    )
    return tuple(np.meshgrid(*along, indexing="ij"))


def times_waves(
    v: Float[Array, "..."], factor: Array, domain: TokenDomain
) -> Float[Array, "..."]:
    """A function on a periodic grid, each wave of it times a factor, `[*grid]`."""
    axes = grid_axes(domain)
    factor = jnp.broadcast_to(factor[..., None], v.shape)
    return jnp.fft.ifftn(factor * jnp.fft.fftn(v, axes=axes), axes=axes).real.astype(v.dtype)


def differences(
    operator: object, u: State, domain: TokenDomain, difference: Callable[..., Array]
) -> State:
    """The sum over axes of the grid of `difference(axis, step, before, v, after)`, v the state,
    between its neighbours along the axis; beyond a boundary it goes on as it is there."""
    v = on_grid(operator, u, domain)
    mode = "wrap" if goes_around(type(operator).__name__, domain) else "edge"
    total = jnp.zeros_like(v)
    for number, (axis, step) in enumerate(zip(grid_axes(domain), domain.steps, strict=True)):
        padding = [(0, 0)] * v.ndim
        padding[axis] = (1, 1)
        wide, points = jnp.pad(v, padding, mode=mode), np.arange(v.shape[axis])
        before, after = (jnp.take(wide, points + shift, axis) for shift in (0, 2))
        total = total + difference(number, step, before, v, after)
    return total.reshape(u.shape)


def check_periodic(operator: object, domain: TokenDomain) -> None:
    """Refuses a domain with boundaries."""
    if not goes_around(type(operator).__name__, domain):
        raise InputError(
            f"{type(operator).__name__} expands in waves and needs a periodic domain, as "
            "TokenDomain.periodic makes it."
        )


def check_axes(operator: object, axes: int, domain: TokenDomain) -> None:
    """Refuses a domain of another dimension than an operator has values for."""
    if axes != domain.dimension:
        raise InputError(
            f"{type(operator).__name__} is for {axes} dimensions of tokens, but this "
            f"TokenDomain has {domain.dimension}."
        )
