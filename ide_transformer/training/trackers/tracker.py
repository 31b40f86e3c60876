import abc
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ...errors import InputError


class AbstractTracker(abc.ABC):
    """A place where the figures of a run go while it trains: `start`, then `log` for each line
    of the log and `flush` before each checkpoint, then `close`.

    One that a configuration names (`training.trackers`) works in a thread of its own, so that
    training waits for it at checkpoints only. An error in it is reported, and the run goes on
    without it.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    @abc.abstractmethod
    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        """Called once before the first line, and again where the run goes back to a checkpoint.

        **Arguments:**

        - `folder`: that of the run, which is there.
        - `config`: the configuration, its values by their dotted keys.
        - `step`: after which the run begins or goes on. What was logged after it by the same
          run is not valid any more.
        """

    @abc.abstractmethod
    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        """One line of the log: some figures after a step. A figure may be NaN or infinite."""

    def flush(self) -> None:  # noqa: B027
        """Called before a checkpoint is written, from which a run that is killed goes on: all
        lines have to be kept when it returns. By default nothing, for a tracker that keeps
        each line at once."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends what `start` began. All lines have to be kept by then."""


def require(package: str, extra: str) -> None:
    """**Raises:** `InputError` where the package of a tracker is not installed."""
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"the package {package} is not installed; run: pip install "
            f"'ide_transformer[{extra}]', or drop this tracker. metrics.jsonl is written "
            "without any."
        )
