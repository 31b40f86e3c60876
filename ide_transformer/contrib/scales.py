"""The distances at which the heads of attention look."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer.dynamics import March, scan_intervals
from ide_transformer.equation import (
    AbstractOperator,
    Attention,
    State,
    TokenDomain,
    differences,
    operator_fields,
    with_fields,
)
from ide_transformer.errors import InputError
from ide_transformer.models import Model


class Distances(NamedTuple):
    """The distances at which the heads of each layer look: means over samples and queries
    without padding.

    - `mean`: `∫ γ_h(x, x') |x - x'| dx'`, in distances of the domain, `[intervals, heads]`.
    - `spectrum`: the share of the mass of γ_h in each band, `[intervals, heads, bands]`.
    - `bands`: the first distance of each band: `0, h, 2h, 4h, …` for grids with steps of h.
    """

    mean: Float[Array, "intervals heads"]
    spectrum: Float[Array, "intervals heads bands"]
    bands: np.ndarray


def distances(model: Model, inputs: PyTree[ArrayLike]) -> Distances:
    """Measures the distances at which heads look, at the states where layers begin.

    **Raises:** `InputError` for a model without heads, tokens that are not on a grid, adaptive
    steps, and a scheme that carries something from interval to interval.
    """
    equation, _ = model.initial_value_problem(inputs)
    domain = equation.domain
    if domain.grid is None or not _attentions(equation.control(0.0)):
        raise InputError(
            "distances: pass a model with Attention, on a grid of tokens such as "
            "TokenDomain.uniform, periodic or midpoint."
        )
    step = min(domain.steps)
    widest = float(np.hypot.reduce((np.array(domain.grid) - 1) * domain.steps)) / step
    bands = np.array([0, *2.0 ** np.arange(int(np.log2(max(widest, 1))) + 1)])

    def measure(attentions, u, domain):
        grid = domain.without_prefix
        square = jnp.sum(differences(grid, grid) ** 2, axis=-1)
        distance = jnp.sqrt(square).astype(u.dtype)
        # The margin is for rounding.
        band = jnp.searchsorted(jnp.asarray(bands), distance / step + 1e-4, side="right") - 1
        is_in_band = jax.nn.one_hot(band, len(bands), dtype=u.dtype)
        gamma = jnp.concatenate([_kernel(x, u, domain) for x in attentions], axis=-2)
        if domain.weights is not None:
            gamma = jnp.where(domain.weights[..., None, None] > 0, gamma, 0)
        gamma = gamma[..., domain.prefix :, :, domain.prefix :]
        gamma = jnp.sum(gamma, axis=range(gamma.ndim - 3))
        mass = jnp.sum(gamma, axis=(0, 2))
        mean = jnp.einsum("xhz,xz->h", gamma, distance) / mass
        return mean, jnp.einsum("xhz,xzb->hb", gamma, is_in_band) / mass[:, None]

    @eqx.filter_jit
    def measure_layers(model, inputs):
        march = March.of("distances", model, inputs)
        equation = march.equation
        states = march.states(march.no_pushes)

        def visit(_, terms, start, u):
            block = [field.operator(start, None) for field in operator_fields(terms)]
            return None, measure(_attentions(block), u, equation.domain)

        return scan_intervals(equation, visit, None, states[:-1], dtype=states.dtype)[1]

    mean, spectrum = measure_layers(model, inputs)
    return Distances(mean, spectrum, step * bands)


def _attentions(block: Sequence[AbstractOperator]) -> list[Attention]:
    """The attentions of a block, also inside operators such as `Scaled`."""
    return [x.innermost for x in block if isinstance(x.innermost, Attention)]


def _kernel(
    attention: Attention, u: State, domain: TokenDomain
) -> Float[Array, "*batch tokens heads others"]:
    """γ_h(x, x') times the quadrature weight of x'. The sum over x' is 1."""

    def unit_values(keys_and_values, domain):
        keys, _ = keys_and_values
        n = domain.num_tokens
        unit = jnp.eye(n, dtype=u.dtype)[:, None, :]
        return (keys, jnp.broadcast_to(unit, (*keys.shape[:-1], n))), domain

    means = with_fields(attention, output=lambda x: x).over(u, domain, unit_values)
    return means.reshape(*u.shape[:-1], attention.heads, domain.num_tokens)
