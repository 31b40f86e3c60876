from ..config import Config
from ..construct import construct
from .trackers import AbstractTracker


def build_trackers(config: Config) -> list[AbstractTracker]:
    """The trackers that a configuration names.

    **Raises:** `InputError` where one is not known, or its package is not installed.
    """
    chosen = config.training.trackers
    return [construct("training.trackers", part, AbstractTracker) for part in chosen]
