"""What every task of this package does beyond `check_task`."""

from itertools import chain

import equinox as eqx
import jax
import numpy as np

from ide_transformer import InputError
from ide_transformer.integration import Mesh
from ide_transformer.tasks.losses import UNCOUNTED
from ide_transformer.testing.tasks import MANY, SIZE, TaskProperties, rows


class TaskConformance(TaskProperties):
    """`again` is the task, built once more, `other` one on other data, and `tokens` another
    number of them that it can have."""

    properties = (
        *TaskProperties.properties,
        *("shapes", "integers", "processes", "sizes", "samples"),
        *("fingerprint", "on"),
    )

    def __init__(self, task, model=None, shared=0.0, *, again=None, other=None, tokens=None):
        super().__init__(task, model, shared)
        self.batches = [self.first, *self.learned, *chain(*self.parts.values())]
        self.again, self.others, self.tokens = again, other, tokens

    def shapes(self):
        """batches have the samples that are asked for, all of the same shapes and dtypes, and
        finite numbers."""
        sizes = [len(rows(x)) for x in (self.first, *self.learned)]
        leaves = [jax.tree.leaves(x.divided()[0]) for x in self.batches]
        kinds = [str([(x.dtype.name, *x.shape[1:]) for x in arrays]) for arrays in leaves]
        finite = [all(np.isfinite(x).all() for x in jax.tree.leaves(b)) for b in self.batches]
        num_batches = len(kinds)
        same = [kinds[0]] * num_batches
        return [sizes, kinds, finite], [[SIZE, *3 * [MANY]], same, [True] * num_batches]

    def integers(self):
        """integers are those that `sizes` allow; a target may be -1."""
        sizes = [self.task.sizes[x] for x in ("vocabulary", "classes") if x in self.task.sizes]
        numbers, allowed = [], []
        for batch in self.batches if sizes else []:
            for least, values in ((0, batch.inputs), (UNCOUNTED, batch.targets)):
                for x in jax.tree.leaves(values):
                    if np.issubdtype(x.dtype, np.integer):
                        numbers.append(x)
                        allowed.append(np.clip(x, least, max(sizes) - 1))
        return numbers, allowed

    def processes(self):
        """several processes make the same rows and points as one."""
        slices = slice(0, 2), slice(2, SIZE)
        halves = [self.task.part_of_batch(3, SIZE, 5, part) for part in slices]
        points = [eqx.tree_equal(x.divided()[1], self.first.divided()[1]) for x in halves]
        return [rows(*halves) == rows(self.first), *points], [True, True, True]

    def sizes(self):
        """held-out parts have batches of the size that is asked for, or smaller ones."""
        is_right = {}
        for part, batches in self.parts.items():
            few = list(self.task.held_out(7, part=part))
            most = max(len(rows(x)) for x in (*few, *batches))
            is_right[part] = [most <= MANY, len(rows(few[0])) <= 7]
        return is_right, {part: [True, True] for part in is_right}

    def samples(self):
        """of a held-out part as many samples are read as are asked for, and all its own."""
        samples_read, expected = {}, {}
        for part, batches in self.parts.items():
            all_samples = rows(*batches)
            some = rows(*self.task.held_out(SIZE, 5, part))
            # At points that all samples of a batch share, a few may have other points.
            shared = bool(jax.tree.leaves(self.first.divided()[1]))
            samples_read[part] = [len(some), shared or set(some) <= set(all_samples)]
            expected[part] = [min(5, len(all_samples)), True]
        return samples_read, expected

    def fingerprint(self):
        """the fingerprint stays the same, built again too, and other data have another one."""
        mark = self.task.fingerprint()
        checks = {"at each call": self.task.fingerprint() == mark}
        if self.again is not None:
            checks["built again"] = self.again.fingerprint() == mark
        if self.others is not None:
            checks["other data"] = self.others.fingerprint() != mark
        return checks, dict.fromkeys(checks, True)

    def on(self):
        """on other tokens it is another task, and the first one is as it was."""
        task, num_tokens = self.task, self.task.tokens_per_sample
        before = rows(task.batch(0, 2, 0))
        checks = {"a mesh that changes nothing": task.on(Mesh()) is task}
        if self.tokens is None:
            try:
                task.on(Mesh(tokens=num_tokens + 1))
            except InputError:
                return checks, dict.fromkeys(checks, True)
        else:
            other = task.on(Mesh(tokens=self.tokens))
            checks["other tokens"] = other.tokens_per_sample != num_tokens
            data = TaskConformance(other, shared=self.shared)
            data.check(["copies", "fingerprint", "on"])
        same = task.tokens_per_sample == num_tokens and rows(task.batch(0, 2, 0)) == before
        checks["itself"] = same
        return checks, dict.fromkeys(checks, True)
