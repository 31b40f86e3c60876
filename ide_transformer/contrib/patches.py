"""Leaves out neighbouring layers and puts a linear map of the state at the cut."""

from collections.abc import Sequence
from typing import ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer.contrib.hadamard_matrices import hadamard
from ide_transformer.contrib.replaced_layers import (
    batches,
    checked_neighbours,
    marched_states,
    mean_turns,
)
from ide_transformer.dynamics import keep_layers, stacked_operators
from ide_transformer.equation import AbstractWrappedOperator, State, TokenDomain
from ide_transformer.errors import InputError
from ide_transformer.models import AbstractInputs, AbstractReadOut, Model
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


class PatchedReadOut(AbstractReadOut):
    """A read-out behind a linear map of the state, `R(u P)`."""

    read_out: AbstractReadOut
    matrix: Float[Array, "features features"]

    def __call__(self, u: State, inputs: AbstractInputs) -> PyTree[Array]:
        return self.read_out(u @ self.matrix.astype(u.dtype), inputs)

    def shaped(self, outputs: PyTree[Array], inputs: PyTree[ArrayLike]) -> PyTree[Array]:
        return self.read_out.shaped(outputs, inputs)

    def check(self, inputs: AbstractInputs) -> None:
        self.read_out.check(inputs)


def patch_layers(
    model: Model, layers: Sequence[int], matrix: Float[ArrayLike, "features features"]
) -> Model:
    """Leave out neighbouring layers and map the state at the cut, u ↦ u P.

    **Arguments:**

    - `model`: pre- or post-norm, with one step of `LieTrotter()` or `Euler()` in each layer.
    - `layers`: the layers to leave out, without layer 0.
    - `matrix`: P.
    """
    first, number = checked_cut(model, layers)
    kept = [*range(first), *range(first + number, model.layers)]
    shorter = keep_layers(model, kept)
    matrix = jnp.asarray(matrix, float)
    if first == len(kept):
        return shorter.with_read_out(PatchedReadOut(shorter.read_out, matrix))
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
            f"LinearPatch keeps the first and the last layer: of {model.layers} layers "
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
    first, number = checked_cut(model, layers)
    rotation = hadamard(model.features)
    ratios = []
    for part in batches(inputs):
        states, counted = map(np.asarray, knot_states(model, part))
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
    first, number = checked_cut(model, layers)
    return least_squares(*cut_tokens(model, first, number, inputs))


def checked_cut(model: Model, layers: Sequence[int]) -> tuple[int, int]:
    """The first of the layers and how many there are."""
    found = checked_neighbours("patch_layers", model, layers)
    schemes = LieTrotter(), projected(LieTrotter()), diffrax.Euler()
    if model.steps == 1 and any(eqx.tree_equal(model.solver, x) for x in schemes):
        return found
    raise InputError(
        "patch_layers: it needs one step of LieTrotter() or Euler() in each layer."
    )


@eqx.filter_jit
def knot_states(model: Model, inputs: PyTree[Array]) -> tuple[Array, Array]:
    """The states at all knots, and which tokens are no padding."""
    return marched_states(model, inputs)[1:]


def cut_tokens(
    model: Model, first: int, number: int, inputs: PyTree[ArrayLike]
) -> tuple[np.ndarray, np.ndarray]:
    """The states before and after the layers at all tokens that are no padding."""
    found = []
    for part in batches(inputs):
        states, counted = map(np.asarray, knot_states(model, part))
        found.append([states[n][counted].astype(float) for n in (first, first + number)])
    x, y = map(np.concatenate, zip(*found, strict=True))
    if len(x) < x.shape[1]:
        raise InputError(
            f"{len(x)} tokens do not determine a map of {x.shape[1]} features; give more."
        )
    return x, y


def least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`argmin_P |x P - y|²`."""
    basis = whitening(x)
    return basis @ ((x @ basis).T @ y)


def whitening(x: np.ndarray) -> np.ndarray:
    """A basis B with `(x B)ᵀ x B = 1`, without directions in which x does not vary."""
    values, vectors = np.linalg.eigh(x.T @ x)
    kept = values > 1e-12 * values[-1]
    return vectors[:, kept] / np.sqrt(values[kept])
