from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..equation import Equation
from ..errors import InputError


class Output(NamedTuple):
    """The output asked of a solve, known when it is compiled.

    - `depths`: of the states that the solution holds.
    - `states`: whether the states at the ends of the intervals are needed.
    - `dense`: whether the interpolation of each interval is needed.
    - `interpolation`: whether the solution keeps it.
    - `read`: what is kept of each state, `read(t, u, args)`.
    - `throw`: whether a failure is an error.
    """

    depths: tuple[float, ...]
    states: bool
    dense: bool
    interpolation: bool
    read: Callable[[Array, Array, PyTree], PyTree]
    throw: bool


class Start(NamedTuple):
    """The initial state, the arguments of the field, and the output asked for."""

    u0: Float[Array, "*batch tokens features"]
    args: PyTree
    output: Output


def requested(
    equation: Equation, saveat: diffrax.SaveAt, steps_per_interval: int | None, *, throw: bool
) -> Output:
    """The output that `saveat` asks for.

    **Arguments:**

    - `steps_per_interval`: of a march; `None` for adaptive steps.
    """
    subs = diffrax.SubSaveAt(t1=True) if saveat.subs is None else saveat.subs
    if (
        not isinstance(subs, diffrax.SubSaveAt)
        or saveat.solver_state
        or saveat.controller_state
        or saveat.made_jump
    ):
        raise InputError(
            f"solve: saveat={saveat}: states of the solver and several outputs are not kept; "
            "use t0, t1, ts, steps, fn and dense."
        )
    depths = _depths(equation, subs, steps_per_interval)
    on_knots = bool(np.isin(depths, equation.knots).all())
    return Output(
        depths,
        states=on_knots and depths != (equation.horizon,),
        dense=saveat.dense or not on_knots,
        interpolation=saveat.dense,
        read=subs.fn,
        throw=throw,
    )


def _depths(
    equation: Equation, subs: diffrax.SubSaveAt, steps_per_interval: int | None
) -> tuple[float, ...]:
    try:
        inner = [] if subs.ts is None else np.asarray(subs.ts, dtype=float).tolist()
    except jax.errors.TracerArrayConversionError as error:
        raise InputError(
            "solve: saveat.ts must be known when the solve is compiled, not computed under "
            "jit; for depths computed later use SaveAt(dense=True) and Solution.evaluate."
        ) from error
    if np.ndim(inner) != 1:
        raise InputError(
            f"solve: saveat.ts has shape {np.shape(inner)}; give a list of depths."
        )
    if not all(0 <= t <= equation.horizon for t in inner):
        raise InputError(f"solve: saveat.ts = {inner} must lie in [0, {equation.horizon:g}].")
    if subs.steps and steps_per_interval is None:
        raise InputError(
            "solve: saveat.steps: the number of adaptive steps is not known when the solve is "
            "compiled; ask for depths, SaveAt(ts=…), or use SaveAt(dense=True)."
        )
    steps: list[float] = []
    if subs.steps:
        number, length = steps_per_interval or 1, equation.control.interval_length
        offsets = length * (np.arange(number) / number)
        # In this form the steps that end at a boundary meet it exactly.
        edges = np.append(np.add.outer(equation.knots[:-1], offsets), equation.horizon)
        steps = edges[int(subs.steps) :: int(subs.steps)].tolist()
    end = [equation.horizon] if subs.t1 and equation.horizon not in steps else []
    return (*([0.0] if subs.t0 else []), *inner, *steps, *end)
