"""Properties of a part: two sides that agree, and what it means where they do not."""

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..errors import InputError
from ..training.choice import Part
from ..training.construct import Offers, construct


class Property(NamedTuple):
    """Two sides that agree to within `bound` of their size, and what it means if they do not.
    `sides` computes them for a case; an `InputError` says that the part refuses the case, and
    there is nothing to compare."""

    sides: Callable[[Any], tuple[PyTree, PyTree]]
    bound: float
    meaning: str


def check(
    part: object, case: Any, properties: Mapping[str, Property], without: tuple[str, ...]
) -> None:
    """Compares the sides of all properties but those left out.

    **Raises:** `AssertionError` for the first that do not agree.
    """
    if unknown := set(without) - set(properties):
        raise InputError(
            f"without={sorted(unknown)}: no such property; known: {', '.join(properties)}."
        )
    for name, (sides, bound, meaning) in properties.items():
        if name in without:
            continue
        problem = f"{type(part).__name__}, {name}: {meaning}"
        try:
            found, expected = sides(case)
        except InputError:
            continue
        except Exception as error:
            raise AssertionError(f"{problem}; {type(error).__name__}: {error}") from error
        if difference := _difference(found, expected, bound):
            raise AssertionError(f"{problem}: {difference}.")


def _difference(found: PyTree, expected: PyTree, bound: float) -> str:
    """The largest difference of two trees of numbers; empty where it is within `bound` times 1
    and their size. NaN differs from all."""
    pair = [list(map(np.asarray, jax.tree.leaves(x))) for x in (found, expected)]
    if [x.shape for x in pair[0]] != [x.shape for x in pair[1]]:
        return " and ".join(f"shapes {[x.shape for x in side]}" for side in pair)
    for x, y in zip(*pair, strict=True):
        apart = np.nan_to_num(abs(x.astype(float) - y), nan=np.inf)
        if (apart > bound * (1 + np.nan_to_num(abs(y)).max(initial=0))).any():
            place = np.unravel_index(apart.argmax(), apart.shape)
            at = f" at {[int(i) for i in place]}" if place else ""
            return f"{x[place]:.6g}, not {y[place]:.6g}, a difference of {apart.max():.1e}{at}"
    return ""


def copies(part: eqx.Module) -> tuple[PyTree, PyTree]:
    """Whether a part is the same pickled, and deep-copied."""
    others = pickle.loads(pickle.dumps(part)), copy.deepcopy(part)
    return [bool(eqx.tree_equal(x, part, typematch=True)) for x in others], [True, True]


def built(part: Any, base: type, options: Mapping[str, Any], offers: Offers) -> Any:
    """A part of the class of `part` as a configuration makes it, from `module:Class` and
    options."""
    kind = type(part)
    choice = Part(kind=f"{kind.__module__}:{kind.__qualname__}", options=dict(options))
    try:
        return construct("part", choice, base, offers, jax.random.key(0))
    except InputError as error:
        raise ValueError(str(error)) from error


def in_dtype(tree: PyTree, dtype: Any = float) -> PyTree:
    """A tree whose floating-point arrays have another dtype."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if eqx.is_inexact_array(x) else x, tree)


def drawn_like(tree: PyTree) -> PyTree:
    """Normal numbers in the place of all floating-point arrays, `None` in that of the rest."""
    random = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: random.normal(size=x.shape), eqx.filter(tree, eqx.is_inexact_array)
    )


def one_sided_difference(f: Callable[[Any], Any], x: np.ndarray, rate: np.ndarray) -> Any:
    """The derivative of `f` along `rate`, from values ahead alone."""
    here, near, far = (np.asarray(f(x + step * rate)) for step in (0.0, 1e-4, 2e-4))
    return (4 * near - 3 * here - far) / 2e-4


def central_difference(f: Callable[[PyTree], Any], tree: PyTree, rate: PyTree) -> Any:
    """The derivative of `f` along `rate`, to about 1e-10."""

    def moved(step: float) -> Any:
        move = jax.tree.map(lambda x: step * x, rate)
        return np.asarray(f(eqx.apply_updates(tree, move)))

    return (moved(1e-5) - moved(-1e-5)) / 2e-5
