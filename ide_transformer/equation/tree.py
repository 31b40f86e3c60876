"""Finds and replaces parts of a tree, such as the operators of a block."""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
from jaxtyping import PyTree


Part = TypeVar("Part")
Module = TypeVar("Module", bound=eqx.Module)


def parts(tree: PyTree, kind: type[Part] | tuple[type[Part], ...]) -> list[Part]:
    """The instances of one or several classes in a tree, in order."""
    is_part = _is_instance(kind)
    return list(filter(is_part, jax.tree.leaves(tree, is_leaf=is_part)))


def map_parts(
    tree: PyTree,
    kind: type[Part] | tuple[type[Part], ...],
    change: Callable[[Part, int], PyTree],
) -> PyTree:
    """Replaces each instance of these classes by `change(part, place)`."""
    is_part = _is_instance(kind)
    leaves, structure = jax.tree.flatten(tree, is_leaf=is_part)
    changed = [change(x, i) if is_part(x) else x for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, changed)


def _is_instance(kind: type | tuple[type, ...]) -> Callable[[object], bool]:
    # Not `isinstance`, which looks into solvers that diffrax wraps.
    return lambda x: issubclass(type(x), kind)


def with_fields(module: Module, **fields: PyTree) -> Module:
    """Copies a module with other fields, without calling its constructor."""
    return eqx.tree_at(
        lambda x: [getattr(x, name) for name in fields],
        module,
        list(fields.values()),
        is_leaf=lambda x: x is None,
    )
