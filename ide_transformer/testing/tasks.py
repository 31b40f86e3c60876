"""Checks tasks."""

import pickle
from itertools import combinations

import equinox as eqx
import jax
import numpy as np

from ..models import Model
from ..tasks import AbstractTask, Batch
from .properties import AbstractProperties, Names


# Samples in a batch that is compared, and in a batch by which a part is read.
SIZE = 6
MANY = 64


def check_task(
    task: AbstractTask, model: Model | None = None, *, shared: float = 0.0, without: Names = ()
) -> None:
    """Checks what training and evaluation need of a task. Raises `AssertionError` with all that
    does not hold.

    **Arguments:**

    - `model`: a model of the task; without it the loss is not checked.
    - `shared`: the largest fraction of the samples of a part that may be in another part.
    - `without`: names of properties that are not checked.

    **Example:** `check_task(RunningSum(12))`
    """
    TaskProperties(task, model, shared).check(without)


def rows(*batches: Batch) -> list[bytes]:
    """The samples of batches, each as bytes."""
    samples = []
    for batch in batches:
        arrays = [np.asarray(x) for x in jax.tree.leaves(batch.divided()[0])]
        samples += [b"".join(x[i].tobytes() for x in arrays) for i in range(len(arrays[0]))]
    return samples


@eqx.filter_jit
def loss_and_gradient(model, loss, batch):
    """The objective, its gradient, and the outputs."""
    objective = eqx.filter_value_and_grad(lambda model: loss(model, batch).objective)
    return *objective(model), model(batch.inputs)


class TaskProperties(AbstractProperties):
    """Properties of a task, with some of its batches and its held-out parts."""

    properties = "copies", "batch", "held_out", "apart", "loss"
    refusals = ()

    def __init__(self, task, model=None, shared=0.0):
        super().__init__(task)
        self.task = task
        self.model = model
        self.shared = shared
        self.first = task.batch(3, SIZE, 5)
        # No training step should have the seed of a held-out part.
        self.learned = [task.batch(step, MANY, 0) for step in range(3)]
        self.parts = {part: list(task.held_out(MANY, part=part)) for part in task.parts}

    def copies(self):
        """a pickled copy has the same data."""
        copy = pickle.loads(pickle.dumps(self.task))
        pair = [(x.fingerprint(), x.sizes, rows(x.batch(1, 3, 2))) for x in (copy, self.task)]
        return pair[0] == pair[1], True

    def batch(self):
        """a batch is a function of the step and the seed, and differs for each of them."""
        cases = {"again": (3, 5), "another step": (4, 5), "another seed": (3, 6)}
        batches = {case: self.task.batch(n, SIZE, seed) for case, (n, seed) in cases.items()}
        same = {case: rows(batch) == rows(self.first) for case, batch in batches.items()}
        return same, {case: case == "again" for case in cases}

    def held_out(self):
        """a held-out part is equal at each call and for each batch size."""
        same = {
            part: rows(*self.task.held_out(7, part=part)) == rows(*batches)
            for part, batches in self.parts.items()
        }
        return same, {part: True for part in ("validation", *same)}

    def apart(self):
        """at most the fraction `shared` of the samples of a part is in another part."""
        samples = {name: set(rows(*batches)) for name, batches in self.parts.items()}
        samples["training"] = set(rows(*self.learned))
        overlaps = {}
        for first, second in combinations(samples, 2):
            fewest = min(len(samples[first]), len(samples[second]))
            overlap = len(samples[first] & samples[second]) / fewest
            overlaps[f"{first} and {second}"] = max(overlap, self.shared)
        return overlaps, dict.fromkeys(overlaps, self.shared)

    def loss(self):
        """the loss of untrained weights is finite, and its gradient is finite and not 0."""
        if self.model is None:
            return (), ()
        batch = self.task.batch(0, SIZE, 1)
        value, gradient, _ = loss_and_gradient(self.model, self.task.loss, batch)
        square = sum(float((x**2).sum()) for x in jax.tree.leaves(gradient))
        return [np.isfinite(value), 0 < square < np.inf], [True, True]
