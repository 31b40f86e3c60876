"""Trackers: where the figures of a run go while it trains."""

from .trackers import InBackground as InBackground
from .trackers import JsonLines as JsonLines
from .trackers import Tensorboard as Tensorboard
from .trackers import AbstractTracker as AbstractTracker
from .trackers import Trackio as Trackio
