"""Properties of a part: two sides that agree, and what does not hold where they do not."""

import copy
import functools as ft
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..errors import InputError
from ..training.build import offers_of
from ..training.config import ModelConfig
from ..training.reader import Given, read


def within(bound: float) -> Callable[[Callable], Callable]:
    """A method that is a property: two sides that agree to within `bound` of their size."""

    def mark(method: Callable) -> Callable:
        method.bound = bound  # pyright: ignore[reportFunctionMemberAccess]
        return method

    return mark


def check_all(checks: Iterable[Callable[[], None]]) -> None:
    """Makes all of these checks.

    **Raises:** `AssertionError` with what each of those that fail says, a line for each.
    """
    said: list[str] = []
    for check in checks:
        try:
            check()
        except AssertionError as error:
            said.append(str(error))
        except Exception as error:
            # After a failure it may follow from that.
            if not said:
                raise
            said.append(f"{type(error).__name__}: {error}")
    if said:
        raise AssertionError("\n".join(said))


def without_those(names: Sequence[str], without: Sequence[str]) -> list[str]:
    """The names of properties but those left out; `InputError` for one that is not known."""
    if unknown := set(without) - set(names):
        raise InputError(
            f"without={sorted(unknown)}: no such property; known: {', '.join(names)}."
        )
    return [x for x in names if x not in without]


class AbstractConformance:
    """Properties of a part of one kind; one that it refuses is not compared."""

    kind: type

    def __init__(self, part: Any, options: Mapping[str, Any], features: int):
        self.part, self.options, self.features = part, dict(options), features

    def check(self, without: tuple[str, ...]) -> None:
        """Compares the sides of all properties but those left out."""
        names = without_those(self._properties, without)
        check_all(ft.partial(self._compare, name) for name in names)

    def _compare(self, name: str) -> None:
        sides = getattr(self, name)
        says = f"{type(self.part).__name__}, {name}: it does not hold that {sides.__doc__}"
        try:
            found, expected = sides()
        except InputError:
            return
        except Exception as error:
            raise AssertionError(f"{says} {type(error).__name__}: {error}") from error
        if difference := _difference(found, expected, sides.bound):
            raise AssertionError(f"{says} {difference}.")

    @property
    def _properties(self) -> list[str]:
        """Their names, the configuration last: it says nothing of what the part does."""
        kinds = reversed(type(self).mro())
        named = (vars(kind).items() for kind in kinds)
        names = dict.fromkeys(name for x in named for name, y in x if hasattr(y, "bound"))
        return sorted(names, key="yaml".__eq__)

    @within(0.0)
    def copies(self):
        """pickled, or deep-copied, it is the same."""
        others = pickle.loads(pickle.dumps(self.part)), copy.deepcopy(self.part)
        return [trees_equal(x, self.part) for x in others], [True] * 2

    @within(0.0)
    def yaml(self):
        """a configuration makes it, by `module:Class` and options."""
        built = eqx.filter_eval_shape(lambda: self.built(self.offers))
        return type(built) is type(self.part), True

    @property
    def offers(self) -> Given:
        """Sizes that a configuration of a model gives to its parts."""
        return offers_of(ModelConfig(width=self.features, heads=1), causal=False)

    def built(self, offers: Given) -> Any:
        """A part of this class as a configuration makes it."""
        kind = type(self.part)
        if not getattr(self.part, "configurable", True):
            raise InputError("A configuration does not name it.")
        tree = {"kind": f"{kind.__module__}:{kind.__qualname__}", "options": self.options}
        try:
            return read(self.kind, tree, "part", given=offers, draws=jax.random.key(0))
        except InputError as error:
            raise ValueError(
                f"{error} What a configuration has to give is options={{…}} of this check, now "
                f"{self.options}; for a part that none makes, configurable = False."
            ) from error


def _difference(found: PyTree, expected: PyTree, bound: float) -> str:
    """The largest difference of two trees of numbers; empty where it is within `bound`."""
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


def trees_equal(tree: PyTree, other: PyTree, close: float = 0.0) -> bool:
    """Whether two trees are of the same types, and equal up to `close`."""

    def host(tree):
        # NumPy compares, which compiles nothing.
        return jax.tree.map(lambda x: np.asarray(x) if eqx.is_inexact_array(x) else x, tree)

    pair = host(tree), host(other)
    return bool(eqx.tree_equal(*pair, typematch=True, rtol=close, atol=close))


def in_dtype(tree: PyTree, dtype: Any = float) -> PyTree:
    """A tree whose floating-point arrays have another dtype."""

    def cast(x):
        # By NumPy, which compiles nothing.
        return jax.device_put(np.asarray(x).astype(dtype)) if eqx.is_inexact_array(x) else x

    return jax.tree.map(cast, tree)


def bits(tree: PyTree) -> list[int]:
    """Bits of a number, for each array of floating-point numbers in a tree."""
    leaves = [x.dtype for x in jax.tree.leaves(tree) if hasattr(x, "dtype")]
    return [jnp.finfo(x).bits for x in leaves if jnp.issubdtype(x, jnp.inexact)]


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


def central_difference(f: Callable[[PyTree], PyTree], tree: PyTree, rate: PyTree) -> PyTree:
    """The derivative of `f` along `rate`, to about 1e-10."""

    def moved(h):
        # By NumPy, which compiles nothing.
        parts, rest = eqx.partition(tree, eqx.is_inexact_array)
        parts = jax.tree.map(lambda x, d: jax.device_put(np.asarray(x) + h * d), parts, rate)
        return eqx.combine(parts, rest)

    ahead, behind = (f(moved(h)) for h in (1e-5, -1e-5))
    return jax.tree.map(lambda x, y: (np.asarray(x) - np.asarray(y)) / 2e-5, ahead, behind)
