"""Finds and changes parts of a tree: operators of a block, fields of terms."""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
from jaxtyping import PyTree


Part = TypeVar("Part")
Module = TypeVar("Module", bound=eqx.Module)


def parts(tree: PyTree, kind: type[Part] | tuple[type[Part], ...]) -> list[Part]:
    """The parts of one or several kinds, in order."""
    is_part = _is(kind)
    return list(filter(is_part, jax.tree.leaves(tree, is_leaf=is_part)))


def map_parts(
    tree: PyTree,
    kind: type[Part] | tuple[type[Part], ...],
    change: Callable[[Part, int], PyTree],
) -> PyTree:
    """Replaces each part of these kinds by `change(part, place)`."""
    is_part = _is(kind)
    leaves, structure = jax.tree.flatten(tree, is_leaf=is_part)
    changed = [change(x, i) if is_part(x) else x for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, changed)


def _is(kind: type | tuple[type, ...]) -> Callable[[object], bool]:
    # By class, since `isinstance` looks into solvers that diffrax wraps.
    return lambda x: issubclass(type(x), kind)


def with_fields(module: Module, **fields: PyTree) -> Module:
    """A copy of a module with other fields, without calling its constructor."""
    return eqx.tree_at(
        lambda x: [getattr(x, name) for name in fields],
        module,
        list(fields.values()),
        is_leaf=lambda x: x is None,
    )
