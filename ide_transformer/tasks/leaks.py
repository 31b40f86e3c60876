"""Finds targets that a model could copy: from later tokens, or from samples it has learned."""

import hashlib
import math
from collections.abc import Mapping

import numpy as np

from ..errors import InputError
from .losses import UNCOUNTED


# The share of targets above which they are refused, and how many are looked at.
_PART = 0.1
_TRIED = 4096


def check_trajectories(
    inputs: np.ndarray, targets: np.ndarray, groups: np.ndarray | None, *, channels: bool
) -> None:
    """**Raises:** `InputError` if targets are inputs of other samples, perhaps with their
    points in another order, and no groups keep these in one part."""
    axes = {x.shape[1 : x.ndim - channels] for x in (inputs, targets)}
    alike = inputs.dtype == targets.dtype and len(axes) == 1 and axes != {()}
    if not alike or not inputs.size or not targets.size:
        return
    if groups is not None and len(np.unique(groups)) == len(groups):
        return  # none belong together
    group_of = np.arange(len(inputs)) if groups is None else groups
    tried = np.linspace(0, len(inputs) - 1, min(len(inputs), _TRIED)).astype(int)
    marks_of_inputs = [_marks(x) for x in _by_channel(inputs, channels)]
    marks_of_targets = [_marks(x[tried]) for x in _by_channel(targets, channels)]
    groups_with: dict[bytes, set[int]] = {}
    for marks in marks_of_inputs:
        for mark, group in zip(marks, group_of.tolist(), strict=True):
            groups_with.setdefault(mark, set()).add(group)
    num_linked = 0
    for row, sample in enumerate(tried):
        marks = {marks[row] for marks in marks_of_targets}
        copied = marks & {marks[sample] for marks in marks_of_inputs}
        others = [groups_with.get(mark, set()) - {int(group_of[sample])} for mark in marks]
        num_linked += not copied and all(others)
    share = num_linked / max(len(tried), 1)
    if share >= _PART:
        raise InputError(
            f"{share:.0%} of the targets are inputs of other samples"
            f"{'' if groups is None else ' in another group'}, as steps of trajectories are; a "
            "random split would hold out what is learned. Pass the trajectories whole, "
            "data.name=trajectories; or an array groups, or one named by data.options.groups, "
            "with one label for all steps of a trajectory, and a label of its own for each "
            "sample that belongs to none."
        )


def check_windows(parts: Mapping[str, np.ndarray], *, any_order: bool) -> None:
    """**Raises:** `InputError` if steps of held-out trajectories, `[samples, times, …]`, are
    also steps of training trajectories, as if both were windows of one longer trajectory;
    with `any_order` also if their points have another order."""

    def steps(trajectories: np.ndarray) -> list[bytes]:
        size = math.prod(trajectories.shape[2:])
        states = trajectories.reshape(*trajectories.shape[:2], size)
        # A state at rest may well come again.
        moving = np.argwhere((states[:, :-1] != states[:, 1:]).any(-1))
        marks = [_marks(x, any_order=any_order) for x in states]
        return [marks[sample][time] + marks[sample][time + 1] for sample, time in moving]

    learned = set(steps(parts["training"]))
    for part in parts.keys() - {"training"}:
        held_out = steps(parts[part])
        share = sum(x in learned for x in held_out) / max(len(held_out), 1)
        if share >= _PART:
            raise InputError(
                f"{share:.0%} of the steps in the {part} part are also in the training part, "
                "as if trajectories were windows of a longer one; pass each trajectory once, "
                "and whole."
            )


def _by_channel(x: np.ndarray, channels: bool) -> np.ndarray:
    """`[channels, samples, points]`."""
    return np.moveaxis(x.reshape(len(x), -1, x.shape[-1] if channels else 1), -1, 0)


def _marks(rows: np.ndarray, *, any_order: bool = True) -> list[bytes]:
    """A hash of each row. With `any_order`, and where most real numbers differ, their order
    does not count."""
    if (
        any_order
        and rows.dtype.kind == "f"
        and rows.size
        and len(np.unique(rows[0])) > rows.shape[1] // 2
    ):
        rows = np.sort(rows, axis=1)
    rows = np.ascontiguousarray(rows + 0)  # -0.0 becomes 0.0
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]


def check_later_inputs(inputs: np.ndarray, targets: np.ndarray) -> None:
    """**Raises:** `InputError` if all targets are the inputs of later tokens."""
    tokens = inputs.shape[1]
    all_inputs, all_targets = (_by_channel(x, x.ndim > 2) for x in (inputs, targets))

    def is_shifted(by: int) -> bool:
        for channel in all_targets[..., : tokens - by]:
            counted = channel != UNCOUNTED
            same = (channel == all_inputs[..., by:]) | ~counted
            if not counted.any() or not same.all(axis=(1, 2)).any():
                return False
        return True

    if is_shifted(0):
        return
    for by in range(1, (tokens + 1) // 2):
        if is_shifted(by):
            raise InputError(
                f"targets are the inputs shifted by {by}, and each token sees its target among "
                "the inputs; for a forecast set causal=True, in YAML data.options.causal=true, "
                "or causal=False if a token may see it."
            )
