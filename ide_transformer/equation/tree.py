"""Parts of one kind inside a tree: operators of a block, fields of terms."""

from collections.abc import Callable
from typing import TypeVar

import jax
from jaxtyping import PyTree


Part = TypeVar("Part")


def parts(tree: PyTree, kind: type[Part]) -> list[Part]:
    """The parts that are of a kind, in order."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, kind))
    return [x for x in leaves if isinstance(x, kind)]


def map_parts(tree: PyTree, kind: type[Part], change: Callable[[Part, int], PyTree]) -> PyTree:
    """The tree with `change(part, place)` for each part of a kind.

    **Arguments:**

    - `change`: `place` is the number of leaves before the part.
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda x: isinstance(x, kind))
    changed = [change(x, i) if isinstance(x, kind) else x for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, changed)
