"""Compositions of Strang steps."""

from typing import ClassVar

import diffrax
import equinox as eqx

from ..errors import InputError
from .runge_kutta import RK4
from .splitting import AbstractSequentialSplitting, Strang


def _symmetric(*outer: float) -> tuple[float, ...]:
    """Coefficients that sum to one: the outer ones on both sides of the middle one."""
    return (*outer, 1 - 2 * len(outer) * outer[0], *outer)


def _as_tuple(coefficients: tuple[float, ...] | list[float]) -> tuple[float, ...]:
    return tuple(coefficients)


class AbstractComposition(AbstractSequentialSplitting):
    """A composition of Strang steps of several lengths,

        u_{n+1} = S(γ_s h) ∘ … ∘ S(γ_2 h) ∘ S(γ_1 h) u_n,   Σ γ_i = 1.

    Sub-steps of one operator that follow one another are made as one. The sub-solver has to
    be of order four at least, for the composition to be. Reference: Hairer, Lubich, Wanner,
    Geometric Numerical Integration, section II.4.
    """

    # γ.
    coefficients: eqx.AbstractVar[tuple[float, ...]]

    def sub_steps(self, num_operators: int) -> list[tuple[int, float, float]]:
        steps: list[tuple[int, float, float]] = []
        begin = 0.0
        for position, coefficient in enumerate(self.coefficients, 1):
            last = position == len(self.coefficients)
            end = 1.0 if last else begin + coefficient
            for index, start, stop in Strang(self.sub_solver).sub_steps(num_operators):
                start, stop = begin + start * (end - begin), begin + stop * (end - begin)
                if steps and steps[-1][0] == index:
                    start = steps.pop()[1]
                steps.append((index, start, stop))
            begin = end
        return steps


class Composition(AbstractComposition):
    """A composition with any coefficients γ. A symmetric one with `Σ γ_i³ = 0` has order four,
    which takes some negative steps (the theorem of Sheng and Suzuki); others have order two.

    **Raises:** `InputError` if the coefficients do not sum to one.
    """

    sub_solver: diffrax.AbstractSolver = RK4()
    coefficients: tuple[float, ...] = eqx.field(
        static=True, converter=_as_tuple, default=(1.0,)
    )

    def __check_init__(self):
        if abs(sum(self.coefficients) - 1) > 1e-12:
            raise InputError(
                f"Composition: the coefficients {self.coefficients} sum to "
                f"{sum(self.coefficients):.15g}; they must sum to 1."
            )

    @property
    def splitting_order(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        symmetric = all(
            abs(a - b) < 1e-12
            for a, b in zip(self.coefficients, self.coefficients[::-1], strict=True)
        )
        fourth = symmetric and abs(sum(c**3 for c in self.coefficients)) < 1e-12
        return 4 if fourth else 2


class Yoshida4(AbstractComposition):
    """The triple jump, order four: `γ = (γ_1, 1 - 2γ_1, γ_1)`, `γ_1 = 1/(2 - 2^(1/3))`.
    Reference: Yoshida, Phys. Lett. A 150 (1990)."""

    sub_solver: diffrax.AbstractSolver = RK4()

    coefficients: ClassVar[tuple[float, ...]] = _symmetric(1 / (2 - 2 ** (1 / 3)))
    splitting_order: ClassVar[int] = 4


class Suzuki4(AbstractComposition):
    """Five steps of which only the middle one is negative, and shorter than that of
    `Yoshida4`; order four: `γ = (γ_1, γ_1, 1 - 4γ_1, γ_1, γ_1)`, `γ_1 = 1/(4 - 4^(1/3))`.
    Reference: Suzuki, Phys. Lett. A 146 (1990)."""

    sub_solver: diffrax.AbstractSolver = RK4()

    coefficients: ClassVar[tuple[float, ...]] = _symmetric(*[1 / (4 - 4 ** (1 / 3))] * 2)
    splitting_order: ClassVar[int] = 4
