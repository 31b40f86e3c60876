"""Fits the linear map at a cut by its error at the read-out."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer.contrib.meshes import Quantity, Target, native_target, read_outputs
from ide_transformer.contrib.patches import (
    checked_cut,
    cut_tokens,
    knot_states,
    least_squares,
    least_squares_map,
    patch_layers,
    whitening,
)
from ide_transformer.contrib.replaced_layers import batches
from ide_transformer.dynamics import March
from ide_transformer.models import Model


def least_error_cut(
    model: Model, number: int, inputs: PyTree[ArrayLike], read: Quantity | None = None
) -> range:
    """The `number` neighbouring layers, without layer 0, whose replacement by the map of
    `least_squares_map` changes what is read least, see `Target`. Maps are fitted to three
    quarters of the samples and judged on the last quarter."""
    fitting, judge = _split(model, inputs, read)
    errors = []
    for first in range(1, model.layers - number + 1):
        gone = range(first, first + number)
        matrix = least_squares_map(model, gone, fitting)
        errors.append(float(judge.error(patch_layers(model, gone, matrix))))
    first = 1 + int(np.nanargmin(errors))
    return range(first, first + number)


def transported_map(
    model: Model,
    layers: Sequence[int],
    inputs: PyTree[ArrayLike],
    read: Quantity | None = None,
    *,
    probes: int = 8,
    ridges: Sequence[float] = (1.0, 0.1),
    seed: int = 0,
) -> Float[np.ndarray, "features features"]:
    """The map for `patch_layers` whose error, carried to the read-out by the linearised march,
    is least,

        argmin Σ |J_τ e_τ|² + ρ w Σ |e_τ|²,   e_τ = x_τ P - y_τ,

    the sums over tokens τ, x and y the states before and after the layers, J_τ the derivative
    of what is read of all outputs with respect to the state of token τ at the cut, and w the
    mean of |J_τ|² over tokens and features. Errors of different tokens count as uncorrelated.

    A metric that is the same for all tokens would change nothing: the least squares of all maps
    minimise the error in every metric at once. J differs from token to token, so the map errs
    where later layers do not look. `|J e|²` is the mean of ⟨Jᵀr, e⟩² over random r, of which
    `probes` are drawn. Conjugate gradients solve for P. It is fitted to three quarters of the
    samples; the last quarter chooses ρ among `ridges`, or the unweighted map of all samples.

    **Arguments:** `read`, see `Target`; it reads eight samples at a time.
    """
    first, number = checked_cut(model, layers)
    fitting, judge = _split(model, inputs, read)
    x, y = cut_tokens(model, first, number, fitting)
    key = jax.random.key(seed)
    pulled = []
    for n, part in enumerate(batches(fitting)):
        own = jax.random.split(jax.random.fold_in(key, n), probes)
        pulled.append(_pulled_probes(model, first + number, part, read, own))
    g = np.concatenate(pulled, axis=1)
    matrix = least_squares(x, y)
    candidates = [matrix]
    for ridge in ridges:
        matrix = weighted_map(x, y, g, ridge, start=matrix)
        candidates.append(matrix)
    errors = [float(judge.error(patch_layers(model, layers, x))) for x in candidates]
    best = int(np.nanargmin(errors))
    return candidates[best] if best else least_squares_map(model, layers, inputs)


def weighted_map(
    x: Float[np.ndarray, "tokens before"],
    y: Float[np.ndarray, "tokens after"],
    g: Float[np.ndarray, "probes tokens after"],
    ridge: float,
    *,
    start: Float[np.ndarray, "before after"],
) -> Float[np.ndarray, "before after"]:
    """`argmin_P Σ_τ (mean_k ⟨g_kτ, x_τ P - y_τ⟩² + ρ w |x_τ P - y_τ|²)`, w the mean of g², by
    conjugate gradients from `start`."""
    from scipy.sparse.linalg import LinearOperator, cg  # slow to import

    basis = whitening(x)
    white = x @ basis
    floor = ridge * np.mean(g**2)

    def metric(errors: np.ndarray) -> np.ndarray:
        along = np.einsum("ktd,td->kt", g, errors)
        return np.einsum("ktd,kt->td", g, along) / len(g) + floor * errors

    def normal(flat: np.ndarray) -> np.ndarray:
        return (white.T @ metric(white @ flat.reshape(shape))).ravel()

    shape = white.shape[1], y.shape[1]
    size = shape[0] * shape[1]
    make: Any = LinearOperator  # its stub lacks `matvec`
    operator = make((size, size), matvec=normal, dtype=float)
    begin = (white.T @ (x @ start)).ravel()
    right = (white.T @ metric(y)).ravel()
    found, _ = cg(operator, right, x0=begin, rtol=1e-6, maxiter=100)
    return basis @ found.reshape(shape)


def _split(
    model: Model, inputs: PyTree[ArrayLike], read: Quantity | None
) -> tuple[PyTree[Array], Target]:
    """Three quarters of a batch to fit to, and the target of the last quarter; a batch of less
    than four samples serves for both."""
    target = native_target(model, inputs, read)
    samples = target.samples
    fitted_on, judged_on = np.split(np.arange(samples), [samples - samples // 4])
    judge = target.part(judged_on if len(judged_on) else fitted_on)
    return target.part(fitted_on).inputs, judge


def _pulled_probes(
    model: Model, knot: int, inputs: PyTree[Array], read: Quantity | None, keys: Array
) -> np.ndarray:
    """`Jᵀr` for random r at the tokens that are no padding, `[probes, tokens, features]`."""
    counted = np.asarray(knot_states(model, inputs)[1])
    pulled = []
    for key in keys:
        _, g = pulled_back(model, jnp.asarray(knot), inputs, read, key)
        pulled.append(np.asarray(g, float)[counted])
    return np.stack(pulled)


@eqx.filter_jit
def pulled_back(
    model: Model, knot: Array, inputs: PyTree[Array], read: Quantity | None, key: Array
) -> tuple[PyTree[Array], Float[Array, "*batch tokens features"]]:
    """A random r of the shape of what is read, and `Jᵀr`, J the derivative of what is read with
    respect to the state at a knot."""
    march = March.of("pulled_back", model, inputs)
    zeros = march.no_pushes

    def read_after(push: Array) -> PyTree[Array]:
        states = march.states(zeros.at[knot].set(push))
        return read_outputs(model, model.outputs(states[-1], inputs), inputs, read)

    y, pull = jax.vjp(read_after, zeros[0])
    leaves, structure = jax.tree.flatten(y)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    r = structure.unflatten(drawn)
    return r, pull(r)[0]
