"""Conformance of a task."""

import functools as ft
import itertools
import pickle
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ..equation import TokenDomain
from ..errors import InputError
from ..integration import Mesh
from ..models import Field, Model, Text
from ..tasks import AbstractLoss, AbstractTask, Batch, Part
from ..tasks.losses import UNCOUNTED
from ..training import Config, build_task
from ..training.loading import starting_model
from .properties import check_all


# Of the batches that are compared, and of those by which a part is read.
_SIZE, _MANY = 6, 64


def check_task(
    task: AbstractTask | Config,
    model: Model | None = None,
    *,
    other: AbstractTask | None = None,
    tokens: int | tuple[int, int] | None = None,
    shared: float = 0.0,
) -> None:
    """Checks what training and evaluation rely on in a task, one of your own included, and says
    all that does not hold:

    - batch: it is a function of seed and step, and another one for each of them.
    - shapes: all batches have the same dtypes, and the same shapes but for the number of
      samples, which is that asked for, in a held-out part at most that. Numbers are finite.
      Integers are those that `sizes` allow; a target may be -1.
    - processes: the rows that `part_of_batch` makes are those of the batch.
    - held out: a part is the same at each call and for each size of a batch, and has no sample
      of another part or of training; `samples` of it are so many of its own.
    - fingerprint: it stays the same, and is not that of `other` data.
    - pickled: a copy by way of pickle gives the same data.
    - on: with other `tokens` it is a task with so many, and the first one is as it was.
    - loss: it is finite, and so are its gradients, at outputs that are exact too. Means over
      parts of a batch add up to those of the batch. What is masked, not counted, has weight
      zero, or comes after all targets of a causal task has no part in it.

    **Arguments:**

    - `task`: a task, or the configuration of a run, of which the model is taken too.
    - `model`: one that learns the task; without one the loss is not checked.
    - `other`: a task of the same class on other data.
    - `tokens`: another number of them that the task can have; without one it has no other.
    - `shared`: the greatest fraction of the samples of a part that may be in another one, for
      problems with few different samples.

    ```python
    check_task(RunningSum(12), other=RunningSum(12, base=5))
    check_task(load_config("own.yaml"), tokens=24)
    ```
    """
    again = None
    if isinstance(task, Config):
        config, task = task, build_task(task)
        model = starting_model(config, task).model if model is None else model
        again = build_task(config)
    checks = [
        ft.partial(_check_data, task, shared),
        ft.partial(_check_fingerprint, task, again, other),
        ft.partial(_check_pickled, task),
        ft.partial(_check_on, task, tokens, shared),
    ]
    if model is not None:
        checks.append(ft.partial(_check_loss, task, model))
    check_all(checks)


def _check_data(task: AbstractTask, shared: float) -> None:
    first = task.batch(3, _SIZE, 5)
    # The seeds of held-out parts should be those of no step, also not of the first.
    learned = [task.batch(step, _MANY, 0) for step in range(3)]
    parts: dict[Part, list[Batch]] = {
        part: list(task.held_out(_MANY, part=part)) for part in task.parts
    }
    _say("validation" in parts and all(parts.values()), "held out", f"there are only {parts}")
    of_parts = (ft.partial(_check_part, task, part, parts[part], first) for part in parts)
    checks = (
        ft.partial(_check_function, task, first),
        ft.partial(_check_shapes, task, first, learned, parts),
        ft.partial(_check_processes, task, first),
        *of_parts,
        ft.partial(_check_apart, {**parts, "training": learned}, shared),
    )
    check_all(checks)


def _check_function(task: AbstractTask, first: Batch) -> None:
    _say(_same(first, task.batch(3, _SIZE, 5)), "batch", "the same step and seed give another")
    for step, seed in ((4, 5), (3, 6)):
        said = f"step {step}, seed {seed} give the batch of step 3, seed 5"
        _say(not _same(first, task.batch(step, _SIZE, seed)), "batch", said)


def _check_shapes(
    task: AbstractTask, first: Batch, learned: list[Batch], parts: dict[Part, list[Batch]]
) -> None:
    for batch in itertools.chain([first], learned, *parts.values()):
        _check_batch(task, batch, first)
    sizes = [len(_rows(batch)) for batch in (first, *learned)]
    _say(sizes == [_SIZE, *3 * [_MANY]], "shapes", f"{sizes} samples are not those asked for")


def _check_part(task: AbstractTask, part: Part, batches: list[Batch], first: Batch) -> None:
    found, few = _all_rows(batches), list(task.held_out(7, part=part))
    most = max(len(_rows(x)) for x in (*few, *batches))
    _say(most <= _MANY and len(_rows(few[0])) <= 7, "shapes", f"{part} has batches of {most}")
    _say(_all_rows(few) == found, "held out", f"{part} is another one at each call")
    some = _all_rows(task.held_out(_SIZE, 5, part))
    said = f"of {part} 5 samples are {len(some)} of {len(found)}"
    _say(len(some) == min(5, len(found)), "held out", said)
    # At points that all samples of a batch share, a few may have other points.
    own = set(found) | set(some if jax.tree.leaves(first.divided()[1]) else [])
    _say(own.issuperset(some), "held out", f"some samples of {part} are not of it")


def _check_apart(parts: dict[str, list[Batch]], shared: float) -> None:
    rows = {part: _all_rows(batches) for part, batches in parts.items()}
    for one, two in itertools.combinations(rows, 2):
        both = len(set(rows[one]) & set(rows[two])) / min(len(set(rows[x])) for x in (one, two))
        said = f"{one} and {two} share {both:.0%} of their samples"
        _say(both <= shared, "held out", said)


def _check_batch(task: AbstractTask, batch: Batch, first: Batch) -> None:
    _say(isinstance(batch, Batch), "shapes", f"a batch is a {type(batch).__name__}")
    one, two = (
        [(x.dtype.name, *x.shape[1:]) for x in jax.tree.leaves(x.divided()[0])]
        for x in (batch, first)
    )
    _say(one == two, "shapes", f"{one} and {two} are those of batches of one task")
    finite = all(np.isfinite(x).all() for x in jax.tree.leaves(batch))
    _say(finite, "shapes", "there are numbers that are not finite")
    sizes = [task.sizes[x] for x in ("vocabulary", "classes") if x in task.sizes]
    for least, values in ((0, batch.inputs), (UNCOUNTED, batch.targets)):
        for x in jax.tree.leaves(values):
            if np.issubdtype(x.dtype, np.integer) and sizes:
                fits = least <= x.min() and x.max() < max(sizes)
                _say(fits, "shapes", f"the integers {x.min()} to {x.max()} for {task.sizes}")


def _check_processes(task: AbstractTask, first: Batch) -> None:
    halves = [task.part_of_batch(3, _SIZE, 5, rows) for rows in (slice(0, 2), slice(2, _SIZE))]
    said = "the rows of several processes are not those of the batch"
    _say(_all_rows(halves) == _rows(first), "processes", said)
    shared = [x.divided()[1] for x in (first, *halves)]
    _say(all(_same(shared[0], x) for x in shared), "processes", "they have other points")


def _check_fingerprint(
    task: AbstractTask, again: AbstractTask | None, other: AbstractTask | None
) -> None:
    mark = task.fingerprint()
    _say(mark == task.fingerprint(), "fingerprint", "it is another one at each call")
    if again is not None:
        _say(mark == again.fingerprint(), "fingerprint", "built again, it is another one")
    if other is not None:
        _say(mark != other.fingerprint(), "fingerprint", "other data have the same one")


def _check_pickled(task: AbstractTask) -> None:
    mark = task.fingerprint()
    try:
        copy = pickle.loads(pickle.dumps(task))
    except Exception as error:
        raise AssertionError(f"pickled: {type(task).__name__} cannot be: {error}.") from error
    same = copy.fingerprint() == mark and _same(copy.batch(1, 3, 2), task.batch(1, 3, 2))
    _say(same and copy.sizes == task.sizes, "pickled", "the copy has other data")


def _check_on(task: AbstractTask, tokens: int | tuple[int, int] | None, shared: float) -> None:
    _say(task.on(Mesh()) is task, "on", "a mesh that changes nothing gives another task")
    before, number = task.batch(0, 2, 0), task.tokens_per_sample
    if tokens is None:
        try:
            task.on(Mesh(tokens=number + 1))
        except InputError:
            return
    else:
        other = task.on(Mesh(tokens=tokens))
        _say(other.tokens_per_sample != number, "on", f"tokens={tokens} leave {number} tokens")
        _check_data(other, shared)
    same = task.tokens_per_sample == number and _same(before, task.batch(0, 2, 0))
    _say(same, "on", "the task itself became another one")


def _check_loss(task: AbstractTask, model: Model) -> None:
    batch = task.batch(0, _SIZE, 1)
    value, gradient, outputs = jax.device_get(_learned(model, task.loss, batch))
    _say(bool(np.isfinite(value)), "loss", f"of untrained weights it is {value}")
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(gradient)))
    _say(0 < float(norm) < np.inf, "loss", f"the norm of its gradient is {norm}")
    for what, changed in _without_a_part(task, batch):
        again, *_ = _learned(model, task.loss, changed)
        _say(_close(again, value), "loss", f"{what} has a part in it: {value}, then {again}")
    _check_measure(task.loss, outputs, batch.targets)


@eqx.filter_jit
def _learned(model: Model, loss: AbstractLoss, batch: Batch) -> tuple[Array, Any, Array]:
    """The objective with its gradient, and the outputs."""
    learned = eqx.filter_value_and_grad(lambda model: loss(model, batch).objective)
    return *learned(model), model(batch.inputs)


def _without_a_part(task: AbstractTask, batch: Batch) -> Iterable[tuple[str, Batch]]:
    """Batches that differ in what may have no part in the loss."""
    texts = [x for x in jax.tree.leaves(batch.inputs, is_leaf=_is_text) if _is_text(x)]
    if any(x.mask is not None and not np.all(x.mask) for x in texts):
        changed = jax.tree.map(_other_padding, batch.inputs, is_leaf=_is_text)
        yield "a token that is masked", batch._replace(inputs=changed)
    targets, inputs = batch.targets, batch.inputs
    if task.causal and isinstance(inputs, np.ndarray) and np.shape(targets) == inputs.shape:
        counted = np.cumsum((np.asarray(targets) != UNCOUNTED)[:, ::-1], axis=1)[:, ::-1] > 0
        if not counted.all():
            yield (
                "a token after all targets",
                batch._replace(inputs=np.where(counted, inputs, 0)),
            )


def _is_text(x: Any) -> bool:
    return isinstance(x, Text)


def _other_padding(x: Any) -> Any:
    if not _is_text(x) or x.mask is None:
        return x
    return x._replace(tokens=np.where(x.mask, x.tokens, 0))


def _check_measure(loss: AbstractLoss, outputs: np.ndarray, targets: Any) -> None:
    whole, parts, gradient, less = jax.device_get(_measured(loss, outputs, targets))
    _say("loss" in whole, "loss", f"its figures {[*whole]} have no loss")
    for name, mean in parts.items():
        said = f"{name} of two parts is {mean}, and of both {whole[name]}"
        _say(_close(mean, whole[name]), "loss", said)
    finite = all(np.isfinite(x).all() for x in gradient)
    _say(finite, "loss", "exact outputs have no finite gradient")
    what = "a point of weight zero" if isinstance(targets, Field) else "a target of -1"
    for with_it, without in less:
        said = f"{what} has a part in it: {with_it}, {without}"
        _say(_close(with_it, without), "loss", said)


@eqx.filter_jit
def _measured(
    loss: AbstractLoss, outputs: Any, targets: Any
) -> tuple[dict[str, Array], dict[str, Array], list[Array], list[tuple[Array, Array]]]:
    """The figures of a batch, and as sums over two parts of it; the gradient at exact outputs,
    where targets are outputs; and the loss with and without what has no part in it, where
    there is such."""
    half = len(outputs) // 3
    own, rest = Batch(outputs, targets).divided()
    parts = [
        loss.measure(*eqx.combine(jax.tree.map(lambda x, at=at: x[at], own), rest))
        for at in (slice(None, half), slice(half, None))
    ]
    sums = jax.tree.map(jnp.add, *parts)
    whole, both = (
        {name: mean.value for name, mean in x.items()}
        for x in (loss.measure(outputs, targets), sums)
    )

    def objective(y: Array, targets: Any = targets) -> Array:
        return loss.measure(y, targets)["loss"].value

    gradient, less = [], []
    values = targets.values if isinstance(targets, Field) else targets
    if jnp.issubdtype(values.dtype, jnp.floating) and values.shape == outputs.shape:
        gradient = [jax.grad(objective)(values.astype(outputs.dtype))]
    # What has no part in the loss: the first point, or all targets of the first sample.
    if isinstance(targets, Field):
        weights = targets.domain.shares.at[..., 0].set(0.0)
        other: Any = Field(values, TokenDomain(targets.domain.points, weights))
        less = [(objective(outputs.at[:, 0].add(1.0), other), objective(outputs, other))]
    elif loss.classifies:
        other = targets.at[0].set(UNCOUNTED)
        changed = outputs.at[0].set(outputs[0, ..., ::-1] + 1.0)
        less = [(objective(changed, other), objective(outputs, other))]
    return whole, both, gradient, less


def _rows(batch: Batch) -> list[bytes]:
    """The samples of a batch, each with all its numbers."""
    arrays = [np.asarray(x) for x in jax.tree.leaves(batch.divided()[0])]
    return [b"".join(x[i].tobytes() for x in arrays) for i in range(len(arrays[0]))]


def _all_rows(batches: Iterable[Batch]) -> list[bytes]:
    return [row for batch in batches for row in _rows(batch)]


def _same(one: Batch, two: Batch) -> bool:
    return bool(eqx.tree_equal(one, two))


def _close(one: ArrayLike, two: ArrayLike) -> bool:
    return bool(np.allclose(one, two, rtol=1e-4, atol=1e-6))


def _say(holds: bool | np.bool_, name: str, said: str) -> None:
    """Raises where a property does not hold."""
    if not holds:
        raise AssertionError(f"{name}: {said}.")
