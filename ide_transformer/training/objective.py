"""The objective of a run."""

import functools as ft
from collections.abc import Callable

from ..tasks import AbstractLoss, Finer, Loss
from .training_config import TrainingConfig


def objective(loss: AbstractLoss, training: TrainingConfig) -> Callable[..., Loss]:
    """The loss of a task with the terms that a run adds, a function of the model, the batch and
    the key of the dropout."""
    given = training.finer
    weighted = given.consistency or given.defect
    finer = Finer(given.refinement, given.consistency, given.defect) if weighted else None
    return ft.partial(
        loss, transport=training.transport, exit_loss=training.exit_loss, finer=finer
    )
