"""What the schemes of this package share, of all that diffrax asks of a solver."""

from collections.abc import Callable
from typing import ClassVar

import diffrax
from jaxtyping import Array, PyTree

from ...equation import Depth


class AbstractScheme(diffrax.AbstractSolver):
    """A scheme that solves the sum of the terms, carries nothing from step to step, and is
    interpolated linearly between steps, unless it says otherwise."""

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def init(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> PyTree:
        return None

    def func(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> PyTree[Array]:
        return terms.vf(t0, y0, args)
