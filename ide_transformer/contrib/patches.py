"""Leaves out neighbouring layers and puts a linear map of the state at the cut."""

from collections.abc import Sequence
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer.contrib.hadamard_matrices import hadamard
from ide_transformer.contrib.meshes import Quantity, native_target, read_outputs
from ide_transformer.contrib.replaced_layers import batches, marched_states, mean_turns
from ide_transformer.dynamics import (
    March,
    in_layers,
    stacked_operators,
    take_layers,
    whole_layers,
)
from ide_transformer.equation import AbstractWrappedOperator, State, TokenDomain
from ide_transformer.errors import InputError
from ide_transformer.models import Model
from ide_transformer.solvers import LieTrotter, projected


class Patched(AbstractWrappedOperator):
    """An operator A behind a linear map P of the state,

        du/dt = A(v) + (v - u),   v = u P,

    so that an Euler step with h = 1 leads from u to `u P + A(u P)`.

    **Arguments:** `operator` A, `matrix` P, and `moves`: `False` leaves out `v - u`, for all
    but one of the operators that a scheme adds up.
    """

    matrix: Float[Array, "*layers features features"]
    moves: bool = eqx.field(static=True, default=True)

    configurable: ClassVar[bool] = False

    def __call__(self, u: State, domain: TokenDomain) -> State:
        v = u @ self.matrix.astype(u.dtype)
        rate = self.operator(v, domain)
        return rate + (v - u) if self.moves else rate


def patch_layers(
    model: Model, layers: Sequence[int], matrix: Float[ArrayLike, "features features"]
) -> Model:
    """Leave out neighbouring layers and map the state at the cut, u ↦ u P.

    **Arguments:**

    - `model`: pre- or post-norm, with one step of `LieTrotter()` or `Euler()` in each layer.
    - `layers`: the layers to leave out; one layer before and one after them stay.
    - `matrix`: P.
    """
    first, number = _checked(model, layers)
    kept = [*range(first), *range(first + number, model.layers)]
    operators = model.equation.num_operators
    shorter = take_layers(in_layers(model), whole_layers(kept, operators))
    matrix = jnp.asarray(matrix, float)
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    stacked = jnp.stack([matrix if n == first else identity for n in range(len(kept))])
    begin, *others = stacked_operators(shorter)
    if isinstance(model.solver, diffrax.Euler):
        others = [Patched(x, stacked, moves=False) for x in others]
    return eqx.tree_at(stacked_operators, shorter, (Patched(begin, stacked), *others))


def least_turned_inside(model: Model, number: int, inputs: PyTree[ArrayLike]) -> range:
    """The `number` neighbouring layers, without the first and the last layer of the model, over
    which the state turns least, see `least_turned`. LinearPatch chooses layers so."""
    if not 0 < number < model.layers - 1:
        raise InputError(
            f"a map at a cut needs a layer before and one after it: of {model.layers} layers "
            f"{number} cannot be left out."
        )
    first = 1 + int(np.argmin(mean_turns(model, number, inputs)[1:-1]))
    return range(first, first + number)


def linear_patch(
    model: Model, layers: Sequence[int], inputs: PyTree[ArrayLike]
) -> Float[np.ndarray, "features features"]:
    """The map of LinearPatch for `patch_layers`,

        P = H diag(d) Hᵀ,   d_k = mean over samples of (mean |y H|_k / mean |x H|_k),

    x and y the states before and after the layers, the inner means over the tokens of a sample
    without padding, and H an orthonormal Hadamard matrix. What the paper adds by distillation
    is left out. Reference: Chen et al., arXiv 2505.24680, and their code.
    """
    first, number = _checked(model, layers)
    rotation = hadamard(model.features)
    ratios = []
    for part in batches(inputs):
        states, counted = map(np.asarray, _states(model, part))
        ends = states[first], states[first + number]
        tokens = counted[..., None]
        x, y = (np.sum(np.abs(u.astype(float) @ rotation) * tokens, axis=-2) for u in ends)
        ratios.append(y / x)
    scales = np.mean(np.concatenate(ratios), axis=0)
    return (rotation * scales) @ rotation.T


def least_squares_map(
    model: Model, layers: Sequence[int], inputs: PyTree[ArrayLike]
) -> Float[np.ndarray, "features features"]:
    """The map `argmin Σ |x P - y|²` for `patch_layers`, over the tokens of `inputs` without
    padding, x and y the states before and after the layers."""
    first, number = _checked(model, layers)
    return _least_squares(*_tokens(model, first, number, inputs))


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
    samples; the last quarter chooses ρ among `ridges` and the unweighted map.

    **Arguments:** `read`, see `Target`; it reads eight samples at a time.
    """
    first, number = _checked(model, layers)
    target = native_target(model, inputs, read)
    samples = target.samples
    fitted_on, judged_on = np.split(np.arange(samples), [samples - samples // 4])
    fitting = target.part(fitted_on).inputs
    judge = target.part(judged_on if len(judged_on) else fitted_on)
    x, y = _tokens(model, first, number, fitting)
    key = jax.random.key(seed)
    pulled = []
    for n, part in enumerate(batches(fitting)):
        own = jax.random.split(jax.random.fold_in(key, n), probes)
        pulled.append(_pulled_probes(model, first + number, part, read, own))
    g = np.concatenate(pulled, axis=1)
    matrix = _least_squares(x, y)
    candidates = [matrix]
    for ridge in ridges:
        matrix = weighted_map(x, y, g, ridge, start=matrix)
        candidates.append(matrix)
    errors = [float(judge.error(patch_layers(model, layers, x))) for x in candidates]
    return candidates[int(np.nanargmin(errors))]


def weighted_map(
    x: Float[np.ndarray, "tokens features"],
    y: Float[np.ndarray, "tokens features"],
    g: Float[np.ndarray, "probes tokens features"],
    ridge: float,
    *,
    start: Float[np.ndarray, "features features"],
) -> Float[np.ndarray, "features features"]:
    """`argmin_P Σ_τ (mean_k ⟨g_kτ, x_τ P - y_τ⟩² + ρ w |x_τ P - y_τ|²)`, w the mean of g², by
    conjugate gradients from `start`."""
    from scipy.sparse.linalg import LinearOperator, cg  # slow to import

    basis = _whitening(x)
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


def _checked(model: Model, layers: Sequence[int]) -> tuple[int, int]:
    """The first of the layers and how many there are."""
    gone = list(layers)
    first = gone[0] if gone else 0
    neighbours = gone == list(range(first, first + len(gone)))
    if not neighbours or not 0 < first < model.layers - len(gone):
        raise InputError(
            f"patch_layers: layers={gone}: give neighbours among 1 to {model.layers - 2}."
        )
    schemes = LieTrotter(), projected(LieTrotter()), diffrax.Euler()
    if model.steps == 1 and any(eqx.tree_equal(model.solver, x) for x in schemes):
        return first, len(gone)
    raise InputError(
        "patch_layers: it needs one step of LieTrotter() or Euler() in each layer."
    )


@eqx.filter_jit
def _states(model: Model, inputs: PyTree[Array]) -> tuple[Array, Array]:
    """The states at all knots, and which tokens are no padding."""
    return marched_states(model, inputs)[1:]


def _tokens(
    model: Model, first: int, number: int, inputs: PyTree[ArrayLike]
) -> tuple[np.ndarray, np.ndarray]:
    """The states before and after the layers at all tokens that are no padding."""
    found = []
    for part in batches(inputs):
        states, counted = map(np.asarray, _states(model, part))
        found.append([states[n][counted].astype(float) for n in (first, first + number)])
    x, y = map(np.concatenate, zip(*found, strict=True))
    if len(x) < x.shape[1]:
        raise InputError(
            f"{len(x)} tokens do not determine a map of {x.shape[1]} features; give more."
        )
    return x, y


def _least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    basis = _whitening(x)
    return basis @ ((x @ basis).T @ y)


def _whitening(x: np.ndarray) -> np.ndarray:
    """A basis B with `(x B)ᵀ x B = 1`, without directions in which x does not vary."""
    values, vectors = np.linalg.eigh(x.T @ x)
    kept = values > 1e-12 * values[-1]
    return vectors[:, kept] / np.sqrt(values[kept])


def _pulled_probes(
    model: Model, knot: int, inputs: PyTree[Array], read: Quantity | None, keys: Array
) -> np.ndarray:
    """`Jᵀr` for random r at the tokens that are no padding, `[probes, tokens, features]`."""
    counted = np.asarray(_states(model, inputs)[1])
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
