"""AdamW with a warm-up, a cosine, clipping, and decay of matrices only."""

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from ..equation import AbstractControl
from ..solvers import AbstractCoefficient
from .config import OptimizerConfig


def build_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The update rule of a run of `steps` steps."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear from near 0 over `warmup` steps, then a cosine to the final learning rate."""
    peak = config.learning_rate
    if not config.warmup:
        return optax.cosine_decay_schedule(peak, steps, config.final_learning_rate / peak)
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / (config.warmup + 1),
        peak_value=peak,
        warmup_steps=config.warmup,
        decay_steps=steps,
        end_value=config.final_learning_rate,
    )


def decayed(model: PyTree) -> PyTree[bool]:
    """Marks the weights that decay: matrices, not vectors such as gains and biases. The depth
    axis of a control does not count, and the coefficients of a scheme are not matrices."""

    def mark(part):
        axes = getattr(part, "depth_axes", 0)
        matrices = not isinstance(part, AbstractCoefficient)
        return jax.tree.map(lambda x: matrices and eqx.is_array(x) and x.ndim - axes >= 2, part)

    parts = AbstractControl | AbstractCoefficient
    return jax.tree.map(mark, model, is_leaf=lambda x: isinstance(x, parts))
