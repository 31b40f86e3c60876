"""Builds the update rule: clipping, learning rate, weight decay, groups of weights."""

import difflib
import fnmatch
import functools as ft
from collections.abc import Callable, Mapping
from types import UnionType

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ...equation import AbstractControl, AbstractPositions
from ...equation.operators.convolutional_attention import DepthwiseProjection
from ...errors import InputError, at
from ..configuration.key import path_of
from ..configuration.training import OptimizerConfig


def build_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The update rule of a run, whose `init` raises `InputError` if a group names no weight.

    Sources: adamw, Loshchilov and Hutter, arXiv 1711.05101; lion, Chen et al., arXiv
    2302.06675; muon, Jordan et al. 2024, its updates scaled to the size of AdamW's, Liu et al.,
    arXiv 2502.16982, so that one rate serves all weights.
    """
    rate = learning_rate(config, steps)
    decay = config.weight_decay
    kind = optax.lion if config.kind == "lion" else optax.adamw
    rule = kind(rate, config.beta1, config.beta2, weight_decay=decay, mask=decays)
    if config.kind == "muon":
        axes = optax.contrib.MuonDimensionNumbers(-2, -1)
        matrices = optax.contrib.muon(
            rate,
            beta=0.95 if config.momentum is None else config.momentum,
            weight_decay=decay,
            muon_weight_dimension_numbers=ft.partial(jax.tree.map, lambda x: axes),
            consistent_rms=0.2,
        )
        # AdamW inside `optax.contrib.muon` would decay every weight or none.
        rule = optax.partition({True: matrices, False: rule}, orthogonalized)
    if config.groups:
        rule = optax.chain(rule, _scale_groups(config))
    return optax.chain(optax.clip_by_global_norm(config.clip), rule)


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate by step: it rises linearly from near 0 over `warmup` steps, then
    follows `schedule`. Source of warmup_stable_decay: arXiv 2405.18392."""
    peak = config.learning_rate
    lowest = config.lowest_rate
    warmup = config.warmup
    # A warm-up of 0 steps gives a constant.
    rises = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    if config.schedule == "constant":
        return rises
    if config.schedule == "warmup_stable_decay":
        decaying = config.decaying_steps(steps)
        falls = optax.linear_schedule(peak, lowest, decaying)
        return optax.join_schedules([rises, falls], [steps - decaying])
    falls = optax.cosine_decay_schedule(peak, steps - warmup, lowest / peak)
    return optax.join_schedules([rises, falls], [warmup])


def decays(model: PyTree) -> PyTree[bool]:
    """Marks the weights that decay: matrices, not gains, biases or weights of a scheme. The
    depth axis of a control does not make a vector a matrix."""

    def mark(part):
        axes = getattr(part, "depth_axes", 0)
        matrices = not isinstance(part, diffrax.AbstractSolver)
        return jax.tree.map(lambda x: matrices and eqx.is_array(x) and x.ndim - axes >= 2, part)

    return jax.tree.map(mark, model, is_leaf=_of(AbstractControl | diffrax.AbstractSolver))


def orthogonalized(model: PyTree) -> PyTree[bool]:
    """Marks the weights whose updates Muon makes orthogonal: the matrices of a control. Tables
    of positions and depthwise convolutions are not linear maps of features."""
    tables = _of(AbstractPositions | DepthwiseProjection)

    def linear(part, marks):
        if tables(part):
            return jax.tree.map(lambda _: False, marks)
        return marks and part.shape[-2] > 1

    def mark(part, marks):
        if not isinstance(part, AbstractControl):
            return False
        return jax.tree.map(linear, part, marks, is_leaf=tables)

    return jax.tree.map(mark, model, decays(model), is_leaf=_of(AbstractControl))


def group_factors(groups: Mapping[str, float], weights: PyTree) -> PyTree[float]:
    """The factor of the learning rate for each weight, from the last group that fits its path,
    such as `control.blocks.0.value.weight`, or the path up to a dot; else 1."""
    leaves, structure = jax.tree.flatten_with_path(weights)
    paths = [path_of(path) for path, _ in leaves]
    factors = dict.fromkeys(paths, 1.0)
    for group, factor in groups.items():
        fitting = [path for path in paths if fnmatch.fnmatchcase(f"{path}.", f"{group}.*")]
        if not fitting:
            parts = {".".join(p.split(".")[:n]) for p in paths for n in range(1, len(p))}
            close = difflib.get_close_matches(group, sorted(parts), n=3, cutoff=0.0)
            raise InputError(
                f"{group!r} fits no weight. The closest paths are {', '.join(close)}."
            )
        factors |= dict.fromkeys(fitting, factor)
    return structure.unflatten(factors[path] for path in paths)


def _of(kind: type | UnionType) -> Callable[[object], bool]:
    return lambda part: isinstance(part, kind)


def _scale_groups(config: OptimizerConfig) -> optax.GradientTransformation:
    """Multiplies updates by the factors of the groups."""

    def init(params):
        with at(config.key / "groups"):
            group_factors(config.groups, params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        return jax.tree.map(jnp.multiply, group_factors(config.groups, updates), updates), state

    return optax.GradientTransformation(init, update)
