"""Finds targets that a model could copy from later tokens or from training samples."""

import hashlib
import math
from collections.abc import Mapping

import numpy as np

from ..errors import InputError
from .losses import UNCOUNTED


# The share of copied targets that is an error, and the most targets to search for.
_MAX_SHARE = 0.1
_SEARCHED = 4096


def check_trajectories(
    inputs: np.ndarray, targets: np.ndarray, groups: np.ndarray | None, *, channels: bool
) -> None:
    """**Raises:** `InputError` if targets are inputs of samples in other groups, perhaps with
    their points in another order. Without `groups` each sample is a group."""
    axes = {x.shape[1 : x.ndim - channels] for x in (inputs, targets)}
    are_alike = inputs.dtype == targets.dtype and len(axes) == 1 and axes != {()}
    if not are_alike or not inputs.size or not targets.size:
        return
    if groups is not None and len(np.unique(groups)) == len(groups):
        return  # the user declares all samples independent
    group_of = np.arange(len(inputs)) if groups is None else groups
    samples = np.linspace(0, len(inputs) - 1, min(len(inputs), _SEARCHED)).astype(int)
    input_hashes = [_hash_rows(x) for x in _by_channel(inputs, channels)]
    target_hashes = [_hash_rows(x[samples]) for x in _by_channel(targets, channels)]
    groups_with: dict[bytes, set[int]] = {}
    for channel in input_hashes:
        for row_hash, group in zip(channel, group_of.tolist(), strict=True):
            groups_with.setdefault(row_hash, set()).add(group)
    num_linked = 0
    for row, sample in enumerate(samples):
        hashes = {channel[row] for channel in target_hashes}
        from_itself = hashes & {channel[sample] for channel in input_hashes}
        elsewhere = [groups_with.get(x, set()) - {int(group_of[sample])} for x in hashes]
        num_linked += not from_itself and all(elsewhere)
    share = num_linked / max(len(samples), 1)
    if share >= _MAX_SHARE:
        raise InputError(
            f"{share:.0%} of the targets are inputs of other samples"
            f"{'' if groups is None else ' in another group'}, like steps of a trajectory, so "
            "a random split would hold out what is learned. Pass whole trajectories, "
            "data.name=trajectories; or an array groups (or data.options.groups) with one "
            "label for each trajectory, and another for each sample of none."
        )


def check_windows(parts: Mapping[str, np.ndarray], *, any_order: bool) -> None:
    """**Raises:** `InputError` if steps of held-out trajectories, `[samples, times, …]`, are
    also steps of training trajectories, as in overlapping windows of one trajectory; with
    `any_order` also if their points have another order."""

    def hash_steps(trajectories: np.ndarray) -> list[bytes]:
        size = math.prod(trajectories.shape[2:])
        states = trajectories.reshape(*trajectories.shape[:2], size)
        # Different trajectories may share a state at rest.
        moving = np.argwhere((states[:, :-1] != states[:, 1:]).any(-1))
        hashes = [_hash_rows(x, any_order=any_order) for x in states]
        return [hashes[sample][time] + hashes[sample][time + 1] for sample, time in moving]

    learned = set(hash_steps(parts["training"]))
    for part in parts.keys() - {"training"}:
        held_out = hash_steps(parts[part])
        share = sum(x in learned for x in held_out) / max(len(held_out), 1)
        if share >= _MAX_SHARE:
            raise InputError(
                f"{share:.0%} of the steps in the {part} part are also in the training part, "
                "as in overlapping windows; pass each trajectory once, and whole."
            )


def _by_channel(x: np.ndarray, channels: bool) -> np.ndarray:
    """`[channels, samples, points]`."""
    return np.moveaxis(x.reshape(len(x), -1, x.shape[-1] if channels else 1), -1, 0)


def _hash_rows(rows: np.ndarray, *, any_order: bool = True) -> list[bytes]:
    """A hash of each row. With `any_order` it ignores the order of real numbers if most of
    them differ."""
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
    """**Raises:** `InputError` if all targets are inputs of later tokens."""
    tokens = inputs.shape[1]
    all_inputs, all_targets = (_by_channel(x, x.ndim > 2) for x in (inputs, targets))

    def is_shifted(by: int) -> bool:
        for channel in all_targets[..., : tokens - by]:
            counted = channel != UNCOUNTED
            equal = (channel == all_inputs[..., by:]) | ~counted
            if not counted.any() or not equal.all(axis=(1, 2)).any():
                return False
        return True

    if is_shifted(0):
        return
    for by in range(1, (tokens + 1) // 2):
        if is_shifted(by):
            raise InputError(
                f"targets are the inputs shifted by {by}, so each token sees its target among "
                "later tokens; for a forecast set causal=True (data.options.causal=true), or "
                "causal=False if a token may see its target."
            )
