"""Measures how small differences of the state grow, and how its tokens cluster."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree
from scipy.sparse.linalg import LinearOperator, eigsh, svds

from ide_transformer.arguments import PositiveFloat, PositiveInt, checked
from ide_transformer.dynamics import March
from ide_transformer.equation import State, by_samples
from ide_transformer.models import Model


# Relative; the error of a result is of the order of its square.
_TOLERANCE = 1e-5


def stretching(
    model: Model, inputs: PyTree[ArrayLike], number: PositiveInt = 8
) -> Float[np.ndarray, "samples number"]:
    """The largest finite-time Lyapunov exponents of each sample, from depth 0 to T, the largest
    first,

        λ_i = log(σ_i) / T,   σ_i the singular values of ∂u(T) / ∂u(0).

    A small difference of states grows at most by `exp(λ_1 T)`. By Krylov's method, from
    products with the Jacobian and its transpose.

    **Arguments:**

    - `inputs`: one sample or a batch.
    - `number`: of exponents, less than the size of the state of a sample.
    """
    marches = _marches("stretching", model, inputs)
    options: dict[str, Any] = dict(tol=_TOLERANCE, return_singular_vectors=False)
    values = []
    for march in marches:
        matrix = _jacobian(march, None, march.u0)
        values.append(svds(matrix, number, v0=_drawn(march.u0), **options))
    with np.errstate(divide="ignore"):
        return np.log(np.sort(values)[:, ::-1]) / marches[0].equation.horizon


def log_norms(
    model: Model, inputs: PyTree[ArrayLike]
) -> Float[np.ndarray, "samples intervals"]:
    """The logarithmic norm of the field at the beginning of each interval, for each sample,

        μ(t) = λ_max((J + Jᵀ) / 2),   J = ∂F(t, u) / ∂u.

    Two neighbouring solutions part at most at this rate; if it is negative, the flow contracts.
    The first state is on the constraint, and padded tokens count. Reference: Hairer, Nørsett,
    Wanner, Solving Ordinary Differential Equations I, section I.10.
    """
    options: dict[str, Any] = dict(tol=_TOLERANCE, return_eigenvectors=False)
    norms = []
    for march in _marches("log_norms", model, inputs):
        states = eqx.filter_jit(March.states)(march, march.no_pushes)
        states = states.at[0].set(eqx.filter_jit(March.on_constraint)(march))
        knots = jnp.asarray(march.equation.knots, states.dtype)
        norms.append([])
        for t, u in zip(knots[:-1], states[:-1], strict=True):
            jacobian = _jacobian(march, t, u)
            symmetric = (jacobian + jacobian.T) / 2
            norms[-1] += [*eigsh(symmetric, 1, which="LA", v0=_drawn(u), **options)]
    return np.array(norms)


class Clustering(NamedTuple):
    """How close the tokens of a state are, `[*batch]`, each token scaled to length 1, x_i:

    - `cosine`: the mean of `⟨x_i, x_j⟩` over pairs of different tokens.
    - `rank`: the effective rank `exp(-Σ_k s_k log s_k)`, s the squared singular values of the
      tokens over their sum.
    - `clusters`: the number of groups of tokens joined by cosines above the threshold.
    - `energy`: `Σ_ij exp(β ⟨x_i, x_j⟩) / (2 β n²)`, which grows along the flow of
      self-attention with identities as weights on the sphere.

    Reference: Geshkovski, Letrouit, Polyanskiy, Rigollet, arXiv 2312.10794.
    """

    cosine: Float[Array, "*batch"]
    rank: Float[Array, "*batch"]
    clusters: Float[Array, "*batch"]
    energy: Float[Array, "*batch"]


@checked
def clustering(
    states: State, *, beta: PositiveFloat = 1.0, threshold: float = 0.95
) -> Clustering:
    """The clustering of states without padding, for example of `costates` or
    `model.solve(inputs, saveat=diffrax.SaveAt(ts=…))`."""
    n = states.shape[-2]
    x = states / jnp.linalg.norm(states, axis=-1, keepdims=True)
    gram = x @ jnp.swapaxes(x, -1, -2)
    # The Gram matrix has the eigenvalues of the covariance.
    shares = jnp.clip(jnp.linalg.eigvalsh(gram), 0) / n
    entropy = -jnp.sum(jax.scipy.special.xlogy(shares, shares), axis=-1)
    # Paths between tokens: each squaring doubles their length.
    joined = gram > min(threshold, 1 - 1e-5)
    for _ in range(max(n - 1, 1).bit_length()):
        joined = jnp.matmul(joined.astype(x.dtype), joined.astype(x.dtype)) > 0
    return Clustering(
        cosine=(jnp.sum(gram, axis=(-2, -1)) - n) / max(n * (n - 1), 1),
        rank=jnp.exp(entropy),
        clusters=jnp.sum(1 / jnp.sum(joined, axis=-1), axis=-1),
        energy=jnp.mean(jnp.exp(beta * gram), axis=(-2, -1)) / (2 * beta),
    )


def _marches(name: str, model: Model, inputs: PyTree[ArrayLike]) -> list[March]:
    """The march of each sample of a batch, or of a single sample."""
    if model.embed(inputs)[0].ndim == 2:
        return [March.of(name, model, inputs)]
    own, shared = eqx.partition(inputs, by_samples(inputs))
    marches = []
    for sample in range(len(jax.tree.leaves(own)[0])):
        one = jax.tree.map(lambda x: x[sample : sample + 1], own)  # noqa: B023
        marches.append(March.of(name, model, eqx.combine(one, shared)))
    return marches


def _drawn(u: Array) -> np.ndarray:
    """The vector that an iteration begins with."""
    return np.random.default_rng(0).normal(size=u.size)


def _jacobian(march: March, t: Array | None, u: Array) -> Any:
    """The Jacobian at u, by its products, of the field at depth t, or if t is `None` of the end
    of the march from u."""

    def applied(transposed):
        return lambda v: np.asarray(
            _product(march, t, u, v.reshape(u.shape), transposed)
        ).ravel()

    products = dict(matvec=applied(False), rmatvec=applied(True), dtype=float)
    return LinearOperator((u.size, u.size), **products)


@eqx.filter_jit
def _product(march: March, t: Array | None, u: Array, v: ArrayLike, transposed: bool) -> Array:
    def value(u):
        if t is None:
            return march._replace(u0=u).states(march.no_pushes)[-1]
        return march.equation.vector_field(t, u)

    v = jnp.asarray(v, u.dtype)
    if transposed:
        _, pull = jax.vjp(value, u)
        return pull(v)[0]
    return jax.jvp(value, (u,), (v,))[1]
