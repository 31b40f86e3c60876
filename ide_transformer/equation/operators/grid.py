"""States on the points of a grid."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ..arrays import State
from ..domain import TokenDomain


def on_grid(operator: object, u: State, domain: TokenDomain) -> Float[Array, "..."]:
    """The state with an axis for each axis of the grid, `[..., *grid, features]`.

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights
    of their own, as padding gives them, or follow tokens that are no points of the grid.
    """
    if domain.grid is None or domain.weights is not None or domain.prefix:
        raise InputError(
            f"{type(operator).__name__} needs tokens at equal distances, without weights, "
            "padding or a class token, as TokenDomain.uniform, periodic and midpoint make them."
        )
    return u.reshape(*u.shape[:-2], *domain.grid, u.shape[-1])


def goes_around(operator: str, domain: TokenDomain) -> bool:
    """Whether a grid is one of a torus, without boundaries.

    **Raises:** `InputError` for one that has boundaries along some of its axes only.
    """
    if domain.period is not None and None in domain.period:
        raise InputError(
            f"{operator} is for grids that have boundaries along all axes or along none, but "
            f"this TokenDomain has period={domain.period}. Take it away, "
            "dataclasses.replace(domain, period=None), where boundaries on all sides will do."
        )
    return domain.period is not None


def grid_axes(domain: TokenDomain) -> tuple[int, ...]:
    """The axes of the grid in what `on_grid` gives, from the end."""
    dimension = domain.dimension
    return tuple(range(-1 - dimension, -1))


def wave_numbers(domain: TokenDomain) -> tuple[np.ndarray, ...]:
    """Along each axis those of the eigenfunctions of the Laplacian: `π j / L` of cosines, whose
    slope is zero at the boundaries, and `2π j / L` of the waves around a periodic domain, in
    the order of the transforms."""
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


def neighbors(
    v: Float[Array, "..."], axis: int, domain: TokenDomain
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Neighbours of each point along an axis of the grid, before and after it; at a boundary
    the point itself."""
    padding = [(0, 0)] * v.ndim
    padding[axis] = (1, 1)
    wide = jnp.pad(v, padding, mode="wrap" if goes_around("A difference", domain) else "edge")
    points = np.arange(v.shape[axis])
    return jnp.take(wide, points, axis), jnp.take(wide, points + 2, axis)


def check_periodic(operator: object, domain: TokenDomain) -> None:
    """**Raises:** `InputError` on a domain with boundaries."""
    if not goes_around(type(operator).__name__, domain):
        raise InputError(
            f"{type(operator).__name__} expands in waves and needs a periodic domain, as "
            "TokenDomain.periodic makes it."
        )


def check_axes(operator: object, axes: int, domain: TokenDomain) -> None:
    """**Raises:** `InputError` where an operator has values for another number of axes."""
    if axes != domain.dimension:
        raise InputError(
            f"{type(operator).__name__} is for {axes} dimensions of tokens, but this "
            f"TokenDomain has {domain.dimension}."
        )
