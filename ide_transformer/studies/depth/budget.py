"""The time that a study takes: predicted, shown, and kept to a limit."""

import time
from collections.abc import Callable, Mapping

from ...errors import InputError


class OverBudget(Exception):
    """A stage has used up its share of the time."""


class Budget:
    """The stages of a study, each with the seconds that it is predicted to take.

    The prediction of what remains is corrected by what the stages so far took. Where the time
    is limited to `minutes`, each stage has a share of what is left, in proportion to its
    prediction; what it does not use is for those after it.
    """

    def __init__(
        self,
        minutes: float | None = None,
        say: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        if minutes is not None and not minutes > 0:
            raise InputError(
                f"study_coarsening: minutes={minutes:g}; give it some time, or none."
            )
        self._say, self._clock = say, clock
        self._began = self._planned_from = clock()
        self._limit = float("inf") if minutes is None else self._began + 60 * minutes
        self._left: dict[str, float] = {}
        # The predicted seconds of the stages so far, and the time they took to it.
        self._done, self._rate = 0.0, 1.0
        self._deadline = float("inf")

    def plan(self, stages: Mapping[str, float]) -> None:
        """Says how long the stages will take together."""
        self._left, self._planned_from = dict(stages), self._clock()
        total, left = sum(stages.values()), self._limit - self._clock()
        hint = ""
        if total > left:
            hint = f"; it is cut to {_duration(max(left, 0.0))}"
        elif left == float("inf") and total > 60:
            hint = "; a limit cuts the search (--minutes)"
        self._say(f"about {_duration(total)} in all{hint}")

    def begin(self, stage: str, *, needed: bool = False) -> None:
        """Says which stage begins, and gives it its share of the time; one that is needed takes
        what it takes."""
        now, remaining = self._clock(), sum(self._left.values())
        if self._done and now > self._planned_from:
            self._rate = (now - self._planned_from) / self._done
        self._say(
            f"{stage}  ({_duration(now - self._began)} so far, "
            f"about {_duration(self._rate * remaining)} to go)"
        )
        work = self._left.pop(stage)
        self._done += work
        share = work / remaining if remaining else 1.0
        self._deadline = float("inf") if needed else now + max(self._limit - now, 0.0) * share
        self.check()

    def check(self, seconds: float = 0.0) -> None:
        """**Raises:** `OverBudget` where the share of the stage is used up, or would be after
        so many predicted seconds."""
        if self._clock() + self._rate * seconds >= self._deadline:
            raise OverBudget


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
