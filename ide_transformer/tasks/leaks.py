"""Finds targets that a model could copy: from later tokens, or from samples it has learned."""

import math
from collections.abc import Mapping

import numpy as np

from ..errors import InputError
from .losses import UNCOUNTED


# The share of targets above which they are refused, and how many are looked at.
_PART = 0.1
_TRIED = 4096
# The relative difference below which two rows, or two numbers, are multiples of each other.
_SAME = 1e-5
# The numbers by which a state is recognised.
_COLUMNS = 64


def check_trajectories(
    inputs: np.ndarray, targets: np.ndarray, groups: np.ndarray | None, *, channels: bool
) -> None:
    """**Raises:** `InputError` if targets are inputs of other samples, times one factor, and
    no groups keep these in one part."""
    axes = {x.shape[1 : x.ndim - channels] for x in (inputs, targets)}
    apart = groups is not None and len(np.unique(groups)) == len(groups)
    alike = inputs.dtype == targets.dtype and len(axes) == 1 and axes != {()}
    if apart or not alike or not inputs.size or not targets.size:
        return
    tried = np.linspace(0, len(inputs) - 1, min(len(inputs), _TRIED)).astype(int)
    given, sought = (_by_channel(x, channels) for x in (inputs, targets))
    found = []
    for y in sought:
        # Multiples of inputs of other samples, in the channel that has most.
        own = np.any([_factors(x[tried], y[tried]) != 0 for x in given], axis=0)
        by_input = [np.where(own, -1, _partners(x, y, tried)) for x in given]
        found.append(max(by_input, key=lambda partners: (partners >= 0).sum()))
    partners = np.where(np.all([x >= 0 for x in found], axis=0), found[0], -1)
    linked = partners >= 0
    if groups is not None:
        linked &= groups[partners] != groups[tried]
    if linked.mean() >= _PART:
        raise InputError(
            f"{linked.mean():.0%} of the targets are inputs of other samples"
            f"{' in another group' if groups is not None else ''}, up to a factor, as steps of "
            "trajectories are; a random split would hold out what is learned. Give the "
            "trajectories whole, data.name=trajectories; or an array groups, or one named by "
            "data.options.groups, with one label for all steps of a trajectory, and a label of "
            "its own for each sample that belongs to none."
        )


def check_windows(parts: Mapping[str, np.ndarray]) -> None:
    """**Raises:** `InputError` if steps of held-out trajectories, `[samples, times, …]`, are
    also steps of training trajectories, as if both were windows of one longer trajectory."""
    size = math.prod(parts["training"].shape[2:])
    columns = np.random.default_rng(0).permutation(size)[:_COLUMNS]

    def steps(trajectories: np.ndarray) -> list[bytes]:
        some = trajectories.reshape(*trajectories.shape[:2], size)[:, :, columns]
        pairs = np.concatenate([some[:, :-1], some[:, 1:]], axis=-1)
        # A state at rest may well come again.
        moving = (some[:, :-1] != some[:, 1:]).any(-1)
        return [pair.tobytes() for pair in pairs[moving]]

    learned = set(steps(parts["training"]))
    for part in parts.keys() - {"training"}:
        own = steps(parts[part])
        share = sum(x in learned for x in own) / max(len(own), 1)
        if share >= _PART:
            raise InputError(
                f"{share:.0%} of the steps in the {part} part are also in the training part, "
                "as if trajectories were windows of a longer one; give each trajectory once, "
                "and whole."
            )


def _by_channel(x: np.ndarray, channels: bool) -> np.ndarray:
    """`[channels, samples, points]`."""
    return np.moveaxis(x.reshape(len(x), -1, x.shape[-1] if channels else 1), -1, 0)


def _partners(x: np.ndarray, y: np.ndarray, tried: np.ndarray) -> np.ndarray:
    """For each of these rows of y another row of x that is a multiple of it, by one factor for
    all rows; -1 for none."""
    angles = _angles(x)
    wanted = _angles(y[tried])
    order = np.argsort(angles)
    first = np.searchsorted(angles[order], wanted - _SAME)
    partners = np.full(len(tried), -1)
    factors = np.zeros(len(tried))
    for further in range(3):
        places = order[np.minimum(first + further, len(x) - 1)]
        near = (np.abs(angles[places] - wanted) < 2 * _SAME) & (places != tried)
        near &= partners < 0
        factors[near] = _factors(x[places[near]], y[tried[near]])
        partners = np.where(near & (factors != 0), places, partners)
    usual = np.median(factors[partners >= 0]) if (partners >= 0).any() else 1.0
    return np.where(np.abs(factors - usual) < 1e-3 * np.abs(usual), partners, -1)


def _angles(rows: np.ndarray) -> np.ndarray:
    """An angle that a row shares with its multiples, and hardly with other rows."""
    two = np.random.default_rng(0).normal(size=(rows.shape[1], 2))
    pieces = [rows[i : i + 1024] @ two for i in range(0, len(rows), 1024)]
    return np.arctan2(*np.concatenate(pieces).T) % np.pi


def _factors(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For each pair of rows c with y = c x, else 0."""
    found = np.zeros(len(x))
    for i in range(0, len(x), 1024):
        a, b = (rows[i : i + 1024].astype(float) for rows in (x, y))
        squares = np.maximum(np.sum(a * a, axis=1), np.finfo(float).tiny)
        factor = np.sum(a * b, axis=1) / squares
        off = np.sum((b - factor[:, None] * a) ** 2, axis=1)
        same = off <= _SAME**2 * np.sum(b * b, axis=1)
        found[i : i + 1024] = np.where(same, factor, 0)
    return found


def check_later_inputs(inputs: np.ndarray, targets: np.ndarray) -> None:
    """**Raises:** `InputError` if targets are inputs of later tokens: at all places, or times
    one factor at a tenth of them, more than by chance."""
    tokens = inputs.shape[1]
    some = max(8, min(256, 2**20 // tokens))
    all_given, all_sought = (_by_channel(x, x.ndim > 2) for x in (inputs, targets))
    given = all_given[:, :some]
    sought = all_sought[:, :some]
    of_others = np.roll(given, 1, axis=1)
    random = np.random.default_rng(0)
    drawn = random.integers(given.shape[1], size=1024), random.random(1024)

    def share(k: int, given: np.ndarray, *, probed: bool) -> float:
        """The share of targets, or of some of them, that are inputs k tokens later."""
        y = sought[..., : tokens - k]
        x = given[..., k:]
        if probed:
            places = (drawn[1] * (tokens - k)).astype(int)
            y, x = (z[:, drawn[0], places] for z in (y, x))
        return float(np.mean([max(_matched(own, other) for other in x) for own in y]))

    def all_of_them(k: int) -> bool:
        for own in all_sought[..., : tokens - k]:
            known = own != UNCOUNTED
            same = (own == all_given[..., k:]) | ~known
            if not known.any() or not same.all(axis=(1, 2)).any():
                return False
        return True

    if all_of_them(0):
        return
    here = {probed: share(0, given, probed=probed) for probed in (True, False)}
    for k in range(1, (tokens + 1) // 2):
        # A few places decide most shifts. Matches without a shift or by chance do not count.
        part = share(k, given, probed=True)
        if part < 1 and part - max(here[True], share(k, of_others, probed=True)) < _PART / 2:
            continue
        part = share(k, given, probed=False)
        by_chance = max(here[False], share(k, of_others, probed=False))
        every = part == 1 and all_of_them(k)
        # A mirrored line has one match at each shift.
        several = part * (tokens - k) > 1.5
        if every or (several and part - by_chance >= _PART):
            what = "" if every else f"up to a factor and at {part:.0%} of the places, "
            raise InputError(
                f"{what}targets are the inputs shifted by {k}, and each token sees its target "
                "among the inputs; for a forecast write causal=True, in YAML "
                "data.options.causal=true, or causal=False if a token may see it."
            )


def _matched(y: np.ndarray, x: np.ndarray) -> float:
    """The share of the numbers y that equal the numbers x, or for real numbers their multiples
    by the factor that fits most."""
    if y.dtype.kind == "i":
        known = y != UNCOUNTED
        return float(np.mean(y[known] == x[known])) if known.any() else 0.0
    known = (y != 0) & (x != 0)
    if not known.any():
        return 0.0
    with np.errstate(over="ignore"):
        ratios = y[known] / x[known]
    ordered = np.sort(ratios[:: max(1, len(ratios) // 1024)])
    near = _SAME * np.abs(ordered)
    beside = np.searchsorted(ordered, ordered + near) - np.searchsorted(ordered, ordered - near)
    factor = ordered[np.argmax(beside)]
    same = np.abs(ratios - factor) <= _SAME * np.abs(factor)
    return float(np.sum(same) / np.sum(y != 0))
