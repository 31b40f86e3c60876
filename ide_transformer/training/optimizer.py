"""Optimizers: clipping, a warm-up, a schedule, decay of matrices only, and groups of weights
with rates of their own."""

import difflib
import fnmatch
from collections.abc import Callable, Mapping
from types import UnionType

import diffrax
import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from ..equation import AbstractControl, AbstractPositions
from ..errors import InputError
from .optimizer_config import OptimizerConfig


def build_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The update rule of a run of `steps` steps. Its first update, or `init`, raises
    `InputError` where a group names no weight."""
    return update_rule(config, learning_rate(config, steps))


def update_rule(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """The update rule with another learning rate, a function of the step."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip), _KINDS[config.kind](config, rate)
    )


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear from near 0 over `warmup` steps, then as `schedule` says."""
    return _SCHEDULES[config.schedule](config, steps)


def decayed(model: PyTree) -> PyTree[bool]:
    """Marks the weights that decay: matrices, not vectors such as gains and biases. The depth
    axis of a control does not count, and the weights of a scheme do not decay."""

    def mark(part):
        axes = getattr(part, "depth_axes", 0)
        matrices = not isinstance(part, diffrax.AbstractSolver)
        return jax.tree.map(lambda x: matrices and eqx.is_array(x) and x.ndim - axes >= 2, part)

    parts = AbstractControl | diffrax.AbstractSolver
    return jax.tree.map(mark, model, is_leaf=_of(parts))


def orthogonalized(model: PyTree) -> PyTree[bool]:
    """Marks the weights whose updates Muon makes orthogonal: the matrices of a control, each by
    itself. Embeddings, read-outs and the tables of positions are no linear maps of features."""

    marks = jax.tree.map(
        lambda part, marks: marks if isinstance(part, AbstractControl) else False,
        model,
        decayed(model),
        is_leaf=_of(AbstractControl),
    )
    return jax.tree.map(
        lambda part, marks: _none_of(marks) if isinstance(part, AbstractPositions) else marks,
        model,
        marks,
        is_leaf=_of(AbstractPositions),
    )


def group_factors(groups: Mapping[str, float], weights: PyTree) -> PyTree[float]:
    """For each weight the factor of its learning rate: that of the last group that fits its
    path, or 1. A group fits a path such as `control.blocks.0.value.weight` if it matches all of
    it, or all up to one of its dots.

    **Raises:** `InputError` for a group that fits no weight, or whose weights all belong to
    later ones.
    """
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(weights)]
    fitting = {group: {path for path in paths if _fits(group, path)} for group in groups}
    chosen = {path: group for group, found in fitting.items() for path in found}
    for group in groups:
        key = f"optimizer.groups: {group!r}"
        if not fitting[group]:
            parts = {".".join(p.split(".")[:n]) for p in paths for n in range(1, len(p))}
            close = difflib.get_close_matches(group, sorted(parts), n=3, cutoff=0.0)
            raise InputError(
                f"{key} fits no weight. The closest paths are {', '.join(close)}; write the "
                "path of a weight or of a part of the model, with * for any characters."
            )
        if group not in chosen.values():
            raise InputError(
                f"{key} has no effect, since later groups take all its weights; move it to the "
                "end, or drop it."
            )
    return jax.tree_util.tree_map_with_path(
        lambda path, _: groups[chosen[path_of(path)]] if path_of(path) in chosen else 1.0,
        weights,
    )


def path_of(path: tuple) -> str:
    """A path into a tree, its names and numbers joined by dots."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def evaluated_weights(state: PyTree, weights: PyTree) -> PyTree:
    """The weights to evaluate: of schedule-free training the mean, of any other the weights
    themselves.

    **Arguments:**

    - `state`: of the optimizer.
    """
    for part in jax.tree.leaves(state, is_leaf=_of(optax.contrib.ScheduleFreeState)):
        if isinstance(part, optax.contrib.ScheduleFreeState):
            return optax.contrib.schedule_free_eval_params(part, weights)
    return weights


def _none_of(marks: PyTree[bool]) -> PyTree[bool]:
    return jax.tree.map(lambda _: False, marks)


def _of(kind: type | UnionType) -> Callable[[object], bool]:
    return lambda part: isinstance(part, kind)


def _fits(group: str, path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in (group, f"{group}.*"))


def _grouped(
    config: OptimizerConfig, rule: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The rule with its updates times the factors of the groups. Without groups it is the rule
    itself, so that its state is that of older checkpoints."""
    if not config.groups:
        return rule

    def init(params):
        group_factors(config.groups, params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        factors = group_factors(config.groups, updates)
        return jax.tree.map(lambda factor, x: factor * x, factors, updates), state

    return optax.chain(rule, optax.GradientTransformation(init, update))


def _adamw(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Loshchilov and Hutter, arXiv 1711.05101."""
    return _grouped(config, _adamw_with(config, rate, config.beta1))


def _adamw_with(
    config: OptimizerConfig, rate: optax.Schedule, beta1: float
) -> optax.GradientTransformation:
    decay = config.weight_decay
    return optax.adamw(rate, b1=beta1, b2=config.beta2, weight_decay=decay, mask=decayed)


def _lion(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Chen et al., arXiv 2302.06675."""
    rule = optax.lion(
        rate, b1=config.beta1, b2=config.beta2, weight_decay=config.weight_decay, mask=decayed
    )
    return _grouped(config, rule)


def _muon(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Jordan et al. 2024, with the size of updates of Liu et al., arXiv 2502.16982: that of
    AdamW, so that one rate serves all weights. The rest goes to AdamW here, since that of
    `optax.contrib.muon` decays every weight or none."""

    def last_two_axes(weights):
        axes = optax.contrib.MuonDimensionNumbers(-2, -1)
        return jax.tree.map(lambda x: axes, weights)

    def labels(weights):
        return jax.tree.map(lambda x: "muon" if x else "adamw", orthogonalized(weights))

    matrices = optax.contrib.muon(
        rate,
        beta=0.95 if config.momentum is None else config.momentum,
        weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=last_two_axes,
        consistent_rms=0.2,
    )
    others = _adamw_with(config, rate, config.beta1)
    return _grouped(config, optax.partition({"muon": matrices, "adamw": others}, labels))


def _schedule_free(
    config: OptimizerConfig, rate: optax.Schedule
) -> optax.GradientTransformation:
    """Defazio et al., arXiv 2405.15682. The mean takes the place of the momentum."""
    rule = _grouped(config, _adamw_with(config, rate, 0.0))
    return optax.contrib.schedule_free(rule, rate, b1=config.beta1)


def _cosine(config: OptimizerConfig, steps: int) -> optax.Schedule:
    peak = config.learning_rate
    if not config.warmup:
        return optax.cosine_decay_schedule(peak, steps, config.lowest_rate / peak)
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / (config.warmup + 1),
        peak_value=peak,
        warmup_steps=config.warmup,
        decay_steps=steps,
        end_value=config.lowest_rate,
    )


def _constant(config: OptimizerConfig, steps: int) -> optax.Schedule:
    peak = config.learning_rate
    if not config.warmup:
        return optax.constant_schedule(peak)
    return optax.linear_schedule(peak / (config.warmup + 1), peak, config.warmup)


def _warmup_stable_decay(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Hägele et al., arXiv 2405.18392."""
    decaying = config.decaying_steps(steps)
    falls = optax.linear_schedule(config.learning_rate, config.lowest_rate, decaying)
    return optax.join_schedules([_constant(config, steps), falls], [steps - decaying])


_KINDS: dict[str, Callable[[OptimizerConfig, optax.Schedule], optax.GradientTransformation]] = {
    "adamw": _adamw,
    "lion": _lion,
    "muon": _muon,
    "schedule_free": _schedule_free,
}
_SCHEDULES: dict[str, Callable[[OptimizerConfig, int], optax.Schedule]] = {
    "cosine": _cosine,
    "constant": _constant,
    "warmup_stable_decay": _warmup_stable_decay,
}
