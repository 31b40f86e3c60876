"""Checks properties of parts. Each property is an equality of two sides."""

import copy
import pickle
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ..errors import InputError
from ..training.configuration.model import ModelConfig
from ..training.configuration.reader import Offers, resolve
from ..training.steps.equations import offers_of


Names: TypeAlias = Collection[str]
Options: TypeAlias = Mapping[str, Any]


class AbstractProperties:
    """Properties of a part. Each is a method that returns two sides, and the relative tolerance
    of their difference if it is not 0. Its docstring is a sentence that says what holds."""

    # The names of the properties, in the order of their check.
    properties: tuple[str, ...]
    # Errors by which a part rejects a property that does not concern it.
    refusals: tuple[type[Exception], ...] = (InputError,)
    kind: type

    def __init__(self, part: Any, options: Options | None = None, features: int = 0):
        self.part = part
        self.options = dict(options or {})
        self.features = features

    def check(self, without: Names = ()) -> None:
        """Raises an `AssertionError` with a line for each property that does not hold."""
        problems = []
        for name in self.properties:
            if name in without:
                continue
            sides = getattr(self, name)
            try:
                problem = _difference(*sides())
            except self.refusals:
                continue
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            if problem:
                message = f"{name}: it does not hold that {sides.__doc__} {problem}"
                line = " ".join(message.split()).removesuffix(".")
                problems.append(f"{type(self.part).__name__}, {line}.")
        if problems:
            raise AssertionError("\n".join(problems))

    def copies(self):
        """pickled and deep copies are equal; define what a part stores in a module, outside of
        functions."""
        pickled = pickle.loads(pickle.dumps(self.part))
        return [equal(x, self.part) for x in (pickled, copy.deepcopy(self.part))], [True] * 2

    @property
    def offers(self) -> Offers:
        """What the configuration of a model passes to its parts."""
        return offers_of(ModelConfig(width=self.features, heads=1), causal=False)

    def built(self) -> Any:
        """A part of this class, built by a configuration."""
        kind = type(self.part)
        if not getattr(self.part, "configurable", True):
            raise InputError("A configuration does not name it.")
        tree = {"kind": f"{kind.__module__}:{kind.__qualname__}", "options": self.options}
        offers = self.offers
        try:
            return resolve(self.kind, tree, "part").make(offers, draws=jax.random.key(0))
        except InputError as error:
            raise ValueError(
                f"{error} Pass the options of a configuration as options={{…}} of this check, "
                f"got {self.options}, or set configurable = False if no configuration makes it."
            ) from error

    def yaml(self):
        """a configuration can make it, by `module:Class` and options."""
        return type(eqx.filter_eval_shape(self.built)) is type(self.part), True


def _difference(actual: PyTree, expected: PyTree, bound: float = 0.0) -> str:
    """The largest difference in the first array that differs; empty if none does."""
    leaves, expected_leaves = (jax.tree.leaves_with_path(x) for x in (actual, expected))
    shapes = [np.shape(x) for _, x in leaves]
    expected_shapes = [np.shape(x) for _, x in expected_leaves]
    if shapes != expected_shapes:
        return f"shapes {shapes}, not {expected_shapes}"
    for (path, x), (_, y) in zip(leaves, expected_leaves, strict=True):
        x = np.asarray(x)
        y = np.asarray(y)
        is_number = x.dtype.kind not in "bU"
        difference = abs(x.astype(float) - y) if is_number else (x != y).astype(float)
        size = np.nan_to_num(abs(y)).max(initial=0) if is_number else 0
        difference = np.nan_to_num(difference, nan=np.inf)
        if (difference > bound * (1 + size)).any():
            place = np.unravel_index(difference.argmax(), difference.shape)
            at = jax.tree_util.keystr(path) + (str([int(i) for i in place]) if place else "")
            return f"{x[place]}, not {y[place]}" + (f" at {at}" if at else "")
    return ""


def equal(tree: PyTree, other: PyTree) -> bool:
    """Whether two trees are equal, in NumPy, which compiles nothing."""

    def to_numpy(tree):
        return jax.tree.map(lambda x: np.asarray(x) if eqx.is_inexact_array(x) else x, tree)

    return bool(eqx.tree_equal(to_numpy(tree), to_numpy(other), typematch=True))


def in_dtype(tree: PyTree, dtype: Any = float) -> PyTree:
    """Casts the floating-point arrays of a tree."""

    def cast(x):
        return jax.device_put(np.asarray(x).astype(dtype)) if eqx.is_inexact_array(x) else x

    return jax.tree.map(cast, tree)


@eqx.filter_jit
def gradient_of(f: Callable, arguments: tuple) -> tuple:
    """The gradient by all floating-point arrays of the `total` of `f(*arguments)`."""
    arrays, rest = eqx.partition(arguments, eqx.is_inexact_array)
    return jax.grad(lambda arrays: total(f(*eqx.combine(arrays, rest))))(arrays)


def total(tree: PyTree) -> Any:
    """A sum to which each number of a tree contributes with another factor."""
    leaves = jax.tree.leaves(tree)
    return sum((np.cos(np.arange(x.size) + 1).reshape(x.shape) * x).sum() for x in leaves)


def slopes(f: Callable, moved: tuple, *fixed: Any) -> tuple[Any, Any, float]:
    """The derivative of the `total` of `f(*moved, *fixed)` along a random direction of `moved`,
    by its gradient and by finite differences."""
    arrays, rest = eqx.partition(moved, eqx.is_inexact_array)
    random = np.random.default_rng(1)
    rate = jax.tree.map(lambda x: random.normal(size=x.shape), arrays)

    def at(h):
        shifted = jax.tree.map(lambda x, r: jax.device_put(np.asarray(x) + h * r), arrays, rate)
        return total(jax.tree.map(np.asarray, f(*eqx.combine(shifted, rest), *fixed)))

    gradient = gradient_of(f, (*moved, *fixed))[: len(moved)]
    along = jax.tree.map(lambda g, r: np.sum(np.asarray(g) * r), gradient, rate)
    return sum(jax.tree.leaves(along)), (at(1e-5) - at(-1e-5)) / 2e-5, 1e-7
