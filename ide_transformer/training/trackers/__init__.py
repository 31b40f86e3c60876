"""Trackers: where the figures of a run go while it trains."""

from .trackers import (
    AbstractTracker as AbstractTracker,
    InBackground as InBackground,
    JsonLines as JsonLines,
    Tensorboard as Tensorboard,
    Trackio as Trackio,
)
