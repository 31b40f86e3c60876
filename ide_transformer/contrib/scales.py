"""Measures how far heads look, the waves of a state, and heads on a coarser grid."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.dynamics import March, in_layers, scan_intervals, stacked_operators
from ide_transformer.equation import (
    AbstractOperator,
    AbstractWrappedOperator,
    Attention,
    GaussianAttention,
    State,
    TokenDomain,
    differences,
    operator_fields,
    with_fields,
)
from ide_transformer.errors import InputError
from ide_transformer.models import Model


# Operators with a kernel γ_h(x, x') for each head.
Kernels = (Attention, GaussianAttention)


class Distances(NamedTuple):
    """The distances at which the heads of each layer look, means over samples and queries
    without padding.

    - `mean`: `∫ γ_h(x, x') |x - x'| dx'`, in distances of the domain, `[intervals, heads]`.
    - `spectrum`: the share of the mass of γ_h in each band, `[intervals, heads, bands]`.
    - `bands`: where bands begin: `0, h, 2h, 4h, …` for grids with steps of h.
    """

    mean: Float[Array, "intervals heads"]
    spectrum: Float[Array, "intervals heads bands"]
    bands: np.ndarray


def heads_of(block: Sequence[AbstractOperator]) -> list[Any]:
    """The operators of a block whose heads have a kernel, `Attention` and `GaussianAttention`,
    also inside others such as `Scaled`."""
    return [x.innermost for x in block if isinstance(x.innermost, Kernels)]


def kernel(
    attention: Any, u: State, domain: TokenDomain
) -> Float[Array, "*batch tokens heads others"]:
    """γ_h(x, x') times the quadrature weight of x', which sums to 1."""

    def unit_values(own, domain):
        n = domain.num_tokens
        unit = jnp.eye(n, dtype=u.dtype)[:, None, :]
        return (own[0], jnp.broadcast_to(unit, (*own[0].shape[:-1], n))), domain

    means = with_fields(attention, output=lambda x: x).over(u, domain, unit_values)
    return means.reshape(*u.shape[:-1], attention.heads, domain.num_tokens)


def distances(model: Model, inputs: PyTree[ArrayLike]) -> Distances:
    """The distances at which heads look, at the states where layers begin.

    **Raises:** `InputError` for a model without heads, tokens that are not on a grid, adaptive
    steps, and a scheme that carries something from interval to interval.
    """
    domain = _domain("distances", model, inputs)
    step = min(domain.steps)
    widest = float(np.hypot.reduce((np.array(domain.grid) - 1) * domain.steps)) / step
    bands = np.array([0, *2.0 ** np.arange(int(np.log2(max(widest, 1))) + 1)])

    def measure(attentions, u, domain):
        grid = domain.without_prefix
        square = jnp.sum(differences(grid, grid) ** 2, axis=-1)
        apart = jnp.sqrt(square).astype(u.dtype)
        # Distances are rounded.
        inside = jnp.searchsorted(jnp.asarray(bands), apart / step + 1e-4, side="right") - 1
        inside = jax.nn.one_hot(inside, len(bands), dtype=u.dtype)
        gamma = jnp.concatenate([kernel(x, u, domain) for x in attentions], axis=-2)
        gamma = _of_queries(gamma, domain)[..., domain.prefix :, :, domain.prefix :]
        gamma = jnp.sum(gamma, axis=range(gamma.ndim - 3))
        mass = jnp.sum(gamma, axis=(0, 2))
        mean = jnp.einsum("xhz,xz->h", gamma, apart) / mass
        return mean, jnp.einsum("xhz,xzb->hb", gamma, inside) / mass[:, None]

    mean, spectrum = _measured("distances", model, inputs, measure)
    return Distances(mean, spectrum, step * bands)


def waves(states: State, domain: TokenDomain) -> Float[Array, "*batch lengths"]:
    """The shares of the energy `∫ |u|² dx` of states in waves over tokens, by length: the
    differences of neighbours, then of neighbouring blocks of 2, 4, … points along each axis,
    and last the mean over the domain. The shares add up to 1: the parts are orthogonal (Haar's
    wavelets).

    **Arguments:** `domain`, a grid; tokens of weight 0 do not count.
    """
    _check_grid("waves", domain)
    grid = domain.without_prefix
    u = states[..., domain.prefix :, :]
    weights = jnp.broadcast_to(grid.shares.astype(u.dtype), u.shape[:-1])
    longest = max(domain.grid or ())
    energies = []
    for k in range((longest - 1).bit_length() + 1):
        members = jnp.asarray(_members(grid, 2**k), u.dtype)
        sums = jnp.einsum("bz,...z,...zf->...bf", members, weights, u)
        total = jnp.einsum("bz,...z->...b", members, weights)
        total = jnp.where(total == 0, 1, total)
        energies.append(jnp.sum(jnp.sum(sums**2, axis=-1) / total, axis=-1))
    energies = jnp.stack([*energies, jnp.zeros(u.shape[:-2], u.dtype)], axis=-1)
    return -jnp.diff(energies, axis=-1) / energies[..., :1]


class CoarseHeads(NamedTuple):
    """Heads whose integral runs over blocks of tokens, with a kernel γ' instead of γ,
    `[intervals, heads]`.

    - `predicted`: `‖γ' - γ‖ / ‖γ‖`, the norms over all pairs of tokens: the expected error for
      values that are independent from token to token.
    - `error`: the relative error of the outputs `∫ γ_h V_h dx' W^O_h` of the head.
    """

    predicted: Float[Array, "intervals heads"]
    error: Float[Array, "intervals heads"]


def coarse_heads(model: Model, inputs: PyTree[ArrayLike], size: PositiveInt) -> CoarseHeads:
    """The error of each head on a grid that is coarser by `size` along each axis: scores of
    keys, and values, are means over blocks of tokens. If scores are linear in the key, this is
    the score of the mean key. A causal head sees blocks that have ended, and the tokens after
    them one by one."""
    _domain("coarse_heads", model, inputs)

    def measure(attentions, u, domain):
        found = []
        for attention in attentions:
            gamma = kernel(attention, u, domain)
            off = _on_blocks(gamma, attention.causal, domain, size) - gamma
            weight = attention.output.weight.reshape(attention.heads, -1, u.shape[-1])
            sizes = []
            for x in (off, gamma):
                means = _values(attention, x, u)
                written = jnp.einsum("...xhd,hdf->...xhf", means, weight.astype(u.dtype))
                for y in (x, written):
                    squares = _of_queries(y, domain) ** 2
                    sizes.append(jnp.sqrt(jnp.sum(squares, axis=(*range(y.ndim - 2), -1))))
            found.append((sizes[0] / sizes[2], sizes[1] / sizes[3]))
        return [jnp.concatenate(x) for x in zip(*found, strict=True)]

    return CoarseHeads(*_measured("coarse_heads", model, inputs, measure))


@checked
def with_coarse_heads(
    model: Model, size: PositiveInt, chosen: Bool[ArrayLike, "intervals heads"]
) -> Model:
    """Compute the chosen heads of a model on a coarser grid, see `coarse_heads`. Continuous
    weights become layers, see `keep_layers`."""
    layered = in_layers(model)
    chosen = jnp.asarray(chosen)
    block = []
    first = 0
    for operator in stacked_operators(layered):
        for attention in heads_of([operator]):
            last = first + attention.heads
            coarse = _OnBlocks(attention, chosen[:, first:last], size)
            operator = eqx.tree_at(lambda x: x.innermost, operator, coarse)
            first = last
        block.append(operator)
    expected = (model.layers, first)
    if chosen.shape != expected:
        raise InputError(
            f"with_coarse_heads: chosen has shape {chosen.shape}; give [intervals, heads], "
            f"{list(expected)}."
        )
    return eqx.tree_at(stacked_operators, layered, tuple(block))


class _OnBlocks(AbstractWrappedOperator):
    """Attention with some heads on blocks of tokens."""

    operator: Any
    chosen: Bool[Array, "*layers heads"]
    size: int = eqx.field(static=True)

    configurable: ClassVar[bool] = False

    def __call__(self, u: State, domain: TokenDomain) -> State:
        gamma = kernel(self.operator, u, domain)
        coarse = _on_blocks(gamma, self.operator.causal, domain, self.size)
        chosen = jnp.broadcast_to(self.chosen[:, None], gamma.shape)
        means = _values(self.operator, jnp.where(chosen, coarse, gamma), u)
        return self.operator.output(means.reshape(*u.shape[:-1], -1))


def _values(attention: Any, gamma: Float[Array, "..."], u: State) -> Float[Array, "..."]:
    """`∫ γ_h V_h dx'`, `[..., tokens, heads, head_features]`."""
    value = attention.projections(u)[2]
    value = jnp.repeat(value, attention.heads // value.shape[-2], axis=-2)
    return jnp.einsum("...xhz,...zhd->...xhd", gamma, value)


def _on_blocks(
    gamma: Float[Array, "..."], causal: bool, domain: TokenDomain, size: int
) -> Float[Array, "..."]:
    """The kernel whose scores are means over blocks of keys."""
    members = _members(domain, size)
    weights = jnp.expand_dims(domain.shares.astype(gamma.dtype), (-3, -2))
    weights = jnp.where(gamma > 0, jnp.broadcast_to(weights, gamma.shape), 0)
    scores = jnp.log(jnp.where(weights > 0, gamma / jnp.where(weights > 0, weights, 1), 1))
    blocks = jnp.asarray(members, gamma.dtype)
    total = jnp.einsum("cz,...z->...c", blocks, weights)
    means = jnp.einsum("cz,...z->...c", blocks, weights * scores)
    means = means / jnp.where(total == 0, 1, total)
    smooth = weights * jnp.exp(jnp.einsum("cz,...c->...z", blocks, means))
    if causal:
        ends = members.shape[1] - 1 - np.argmax(members[:, ::-1], axis=1)
        ended = np.greater_equal.outer(np.arange(domain.num_tokens), ends @ members)
        smooth = jnp.where(jnp.broadcast_to(ended[:, None], gamma.shape), smooth, gamma)
    mass = jnp.sum(smooth, axis=-1, keepdims=True)
    return smooth / jnp.where(mass == 0, 1, mass)


def _members(domain: TokenDomain, size: int) -> np.ndarray:
    """`[blocks, tokens]`: 1 where a token belongs to a block, else 0."""
    grid = domain.grid or ()
    places = np.indices(grid).reshape(len(grid), -1) // size
    shape = [-(-n // size) for n in grid]
    blocks = domain.prefix + np.ravel_multi_index([*places], shape)
    block = np.concatenate([np.arange(domain.prefix), blocks])
    return np.equal.outer(np.arange(block.max() + 1), block).astype(float)


def _of_queries(x: Float[Array, "..."], domain: TokenDomain) -> Float[Array, "..."]:
    """`[..., tokens, heads, _]` with zeros at padding."""
    if domain.weights is None:
        return x
    seen = jnp.broadcast_to(domain.weights > 0, x.shape[:-2])
    return jnp.where(seen[..., None, None], x, 0)


def _domain(name: str, model: Model, inputs: PyTree[ArrayLike]) -> TokenDomain:
    """The domain of inputs, checked for the function `name`, which needs heads on a grid."""
    equation, _ = model.initial_value_problem(inputs)
    if not heads_of(equation.control(0.0)):
        raise InputError(
            f"{name}: no head of the model has a kernel; give a model with Attention or "
            "GaussianAttention."
        )
    _check_grid(name, equation.domain)
    return equation.domain


def _check_grid(name: str, domain: TokenDomain) -> None:
    if domain.grid is None:
        raise InputError(
            f"{name}: the tokens are not on a grid; give a model on TokenDomain.uniform, "
            "periodic or midpoint."
        )


def _measured(
    name: str, model: Model, inputs: PyTree[ArrayLike], measure: Callable[..., PyTree]
) -> PyTree[Array]:
    """`measure(attentions, u, domain)` where each interval begins."""

    @eqx.filter_jit
    def measured(model, inputs):
        march = March.of(name, model, inputs)
        equation = march.equation
        states = march.states(march.no_pushes)

        def visit(_, terms, start, u):
            operators = [field.operator(start, None) for field in operator_fields(terms)]
            return None, measure(heads_of(operators), u, equation.domain)

        return scan_intervals(equation, visit, None, states[:-1], dtype=states.dtype)[1]

    return measured(model, inputs)
