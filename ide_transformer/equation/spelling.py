"""Prints objects as constructor calls, with shapes in place of arrays."""

import dataclasses
import inspect
import textwrap
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .operators.feed_forward import Linear


_ARRAYS = jax.Array | np.ndarray | jax.ShapeDtypeStruct


def spell(x: Any, depth_axes: int = 0) -> str:
    """Prints an object as a constructor call, with shapes for arrays and without defaults."""
    if isinstance(x, _ARRAYS):
        return f"[{','.join(map(str, x.shape[depth_axes:]))}]"
    if isinstance(x, Linear):
        return spell(x.weight, depth_axes) + ("" if x.bias is None else " + bias")
    if isinstance(x, tuple | list):
        return f"({', '.join(spell(y, depth_axes) for y in x)})"
    if isinstance(x, eqx.Module) and type(x).__repr__ is eqx.Module.__repr__:
        return f"{type(x).__name__}({spell_options(x, depth_axes)})"
    return getattr(x, "__name__", repr(x).partition("\n")[0])


def spell_options(x: Any, depth_axes: int = 0) -> str:
    """Prints the arguments of `spell`'s constructor call. A single module or array has no
    name."""
    if not dataclasses.is_dataclass(x):
        return spell(x)
    parameters = inspect.signature(type(x)).parameters
    texts = {}
    for field in dataclasses.fields(x):
        value = getattr(x, field.name, None)
        default = field.default
        if default is dataclasses.MISSING:
            parameter = parameters.get(field.name)
            default = None if value is None or parameter is None else parameter.default
        text = spell(value, depth_axes)
        # A scheme inside a scheme is always printed.
        if isinstance(value, diffrax.AbstractSolver) or text != spell(default, depth_axes):
            texts[field.name] = text
    if len(texts) == 1 and isinstance(getattr(x, *texts), eqx.Module | _ARRAYS):
        return str(*texts.values())
    return ", ".join(f"{name}={text}" for name, text in texts.items())


def listing(x: object, entries: dict[str, str]) -> str:
    """The class of an object, then a line for each entry."""
    lines = [
        textwrap.fill(f"{name}: {text}", 96, initial_indent="  ", subsequent_indent="    ")
        for name, text in entries.items()
    ]
    return "\n".join([type(x).__name__, *lines])


def count_weights(tree: PyTree) -> str:
    arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, _ARRAYS)]
    return f"{sum(x.size for x in arrays if jnp.issubdtype(x.dtype, jnp.inexact)):,}"
