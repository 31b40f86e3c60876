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
    - `throw`: whether a failure is an error.
    """

    depths: tuple[float, ...]
    states: bool
    dense: bool
    interpolation: bool
    throw: bool


class Start(NamedTuple):
    """The initial state, the arguments of the field, and the output asked for."""

    u0: Float[Array, "*batch tokens features"]
    args: PyTree
    output: Output


def requested(equation: Equation, saveat: diffrax.SaveAt, *, throw: bool) -> Output:
    """The output that `saveat` asks for."""
    depths = _depths(equation, saveat)
    on_knots = bool(np.isin(depths, equation.knots).all())
    return Output(
        depths,
        states=on_knots and depths != (equation.horizon,),
        dense=saveat.dense or not on_knots,
        interpolation=saveat.dense,
        throw=throw,
    )


def _depths(equation: Equation, saveat: diffrax.SaveAt) -> tuple[float, ...]:
    plain = diffrax.SubSaveAt(t1=True)
    subs = plain if saveat.subs is None else saveat.subs
    if (
        not isinstance(subs, diffrax.SubSaveAt)
        or (subs.steps, subs.fn) != (plain.steps, plain.fn)
        or saveat.solver_state
        or saveat.controller_state
        or saveat.made_jump
    ):
        raise InputError(
            f"solve: {saveat} asks for output that solve does not give; use t0, t1, ts or "
            "dense, for example diffrax.SaveAt(ts=equation.knots) for the state after each "
            "layer."
        )
    try:
        inner = [] if subs.ts is None else np.asarray(subs.ts, dtype=float).tolist()
    except jax.errors.TracerArrayConversionError as error:
        raise InputError(
            "solve: saveat.ts must be known when the solve is compiled, not computed under "
            "jit; for depths computed later use SaveAt(dense=True) and Solution.evaluate."
        ) from error
    if any(not 0 <= t <= equation.horizon for t in inner):
        raise InputError(f"solve: saveat.ts = {inner} must lie in [0, {equation.horizon:g}].")
    start, end = [0.0] if subs.t0 else [], [equation.horizon] if subs.t1 else []
    return (*start, *inner, *end)
