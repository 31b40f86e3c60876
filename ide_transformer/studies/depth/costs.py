"""The costs of the parts of a study, predicted from its first solves."""

import inspect
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from ... import dynamics
from ...dynamics.layers import MOST_SELECTIONS
from ...models import Model
from .problem import Problem
from .trials import Trials, solved_batch


class Costs(NamedTuple):
    """Seconds.

    - `sample`: to solve one sample; `program`: to compile a solve; `copy`: to copy the weights.
    - `calibration`, `held_out`: numbers of samples.
    - `operators`: in a layer.
    """

    sample: float
    program: float
    copy: float
    calibration: int
    held_out: int
    operators: int

    def solves(self, number: int, programs: int) -> float:
        """Solves of the held-out batch."""
        return number * (self.copy + self.held_out * self.sample) + programs * self.program

    def search(
        self, layers: int, least: int, moves: Sequence[Callable], fit: Callable | None
    ) -> float:
        """A search from so many layers down to the least."""
        fitted_on = self.calibration - self.calibration // 4
        tried_on = self.calibration // 4 or fitted_on
        # Programs to judge what is fitted and what is not; to compile a fit takes as long as
        # six. The others are shared.
        fitting = 0 if fit is None else fit_samples(fitted_on) * self.sample + 8 * self.program
        seconds = 0.0
        for kept in range(layers - 1, least - 1, -1):
            choices = math.comb(layers, kept)
            counts = {
                dynamics.selections: choices if choices <= MOST_SELECTIONS else 0,
                dynamics.mergers: kept,
            }
            # Of those that leave out neighbouring operators.
            windows = kept * self.operators + 1
            tried = sum(counts.get(move, windows) for move in moves)
            seconds += tried * (self.copy + tried_on * self.sample) + fitting
        return seconds + (layers - least) * self.held_out * self.sample


def fit_samples(samples: int) -> int:
    """The solves of one sample that a fit of step sizes costs: a gradient is worth three."""
    options = inspect.signature(dynamics.fit_rates).parameters
    return 3 * options["steps"].default * min(options["batch"].default, samples)


def measure_costs(model: Model, problem: Problem) -> tuple[Trials, Costs]:
    """The native solve, and the costs that follow from it."""
    compiled = _seconds(lambda: solved_batch(model, problem.held_out))
    solved = _seconds(lambda: solved_batch(model, problem.held_out))
    trials = Trials(model, problem)
    every = range(model.control.num_intervals)
    dynamics.keep_layers(model, every)
    calibration, held_out = problem.sizes
    return trials, Costs(
        sample=solved / held_out,
        program=max(compiled - solved, 0.0),
        copy=_seconds(lambda: dynamics.keep_layers(model, every)),
        calibration=calibration,
        held_out=held_out,
        operators=model.equation.num_operators,
    )


def _seconds(made: Callable[[], object]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(made())
    return time.perf_counter() - began
