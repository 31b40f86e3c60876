from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from .control import AbstractControl


Control = TypeVar("Control", bound=AbstractControl)


def low_precision(control: Control, dtype: str) -> Control:
    """The same control with its matrices rounded to another dtype, so that operators compute
    their products in it. Vectors such as gains and biases stay. The cast is differentiated
    too, so the gradient has the dtype of the stored weights.

    **Arguments:**

    - `dtype`: for example `bfloat16`.
    """

    def cast(x):
        matrix = eqx.is_inexact_array(x) and x.ndim - control.depth_axes >= 2
        return x.astype(jnp.dtype(dtype)) if matrix else x

    return jax.tree.map(cast, control)
