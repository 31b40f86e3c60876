"""Runs: configuration, training loop, checkpoints, metrics."""

from ..packages import require_training as _require_training


_require_training()

from .public import *  # noqa: E402
