from typing import ClassVar

from jaxtyping import Array, PyTree

from ..constraints.sets import AbstractConstraint
from ..function_space import FunctionSpace
from ..operators.operator import AbstractOperator
from ..shapes import Depth
from ..tree import map_parts
from .control import AbstractControl, AbstractWrappedControl


class Functional(AbstractWrappedControl):
    """A control whose weights are functions of the features too: those of another control, read
    as coefficients,

        W(y, ξ, t) = Σ_ab C_ab(t) φ_a(y) φ_b(ξ),

    at the points of Ω_y. States have as many features as there are points; on more of them the
    solutions converge.

    **Arguments:**

    - `control`: gives C(t), an ordinary control for states of `space.modes` features.
    - `space`: φ and the points.

    **Raises:** `InputError` when solved, for operators that are no functions of y.
    """

    control: AbstractControl
    space: FunctionSpace

    configurable: ClassVar[bool] = False

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return self._at_points(self.control.local(interval, s))

    def __call__(self, t: Depth) -> PyTree:
        return self._at_points(self.control(t))

    def _at_points(self, block: PyTree) -> PyTree:
        kinds = AbstractOperator, AbstractConstraint
        return map_parts(block, kinds, lambda part, _: part.at_points(self.space))
