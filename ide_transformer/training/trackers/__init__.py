"""Trackers: where the figures of a run go while it trains."""

from .in_background import InBackground as InBackground
from .json_lines import JsonLines as JsonLines
from .tensorboard import Tensorboard as Tensorboard
from .tracker import AbstractTracker as AbstractTracker
from .trackio import Trackio as Trackio
