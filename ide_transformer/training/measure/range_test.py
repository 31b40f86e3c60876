"""Finds a learning rate: the rate grows from step to step until the loss explodes."""

import math
from pathlib import Path
from typing import Annotated, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from ...arguments import at_least, checked
from ...errors import InputError
from ...reporting import write_json
from ..configuration.config import Config
from ..configuration.files import as_config
from ..folder.metrics import TrainingProgress
from ..run import build_start
from ..steps.build import objective
from ..steps.optimizer import update_rule
from ..steps.step import better_solve, initial_state, make_train_step


LOWEST = 1e-6
HIGHEST = 1.0
# The loss is smoothed over about this many steps on either side.
_SMOOTHED_OVER = 5
# The suggestion is this factor times the rate at which the loss falls fastest.
_FACTOR = 4.0
# The test ends when the recent loss is this factor times the lowest so far.
_EXPLODED = 4.0


class LearningRates(NamedTuple):
    """The result of a range test.

    - `rates`, `losses`, `smoothed`: the rate, the loss and the smoothed loss of every step.
    - `fastest`: the rate at which the smoothed loss falls fastest; `None` if it never falls.
    - `lowest`: the rate at which the smoothed loss is lowest.
    - `suggestion`: for `optimizer.learning_rate`: four times `fastest`, at most `lowest`.
    - `jump`: the lowest rate, if any, at which a loss is above `smoothed` by half of the fall.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    fastest: float | None
    lowest: float
    suggestion: float | None
    jump: float | None

    @property
    def text(self) -> str:
        """The suggestion, in words."""
        if self.suggestion is None:
            return "no suggestion: the loss did not fall at any learning rate"
        jumped = "" if self.jump is None else f"; the loss jumped at {self.jump:.1e} already"
        falls = f"falls fastest at {self.fastest:.1e} and is lowest at {self.lowest:.1e}"
        rate = f"suggestion: optimizer.learning_rate={self.suggestion:.1e}"
        return f"{rate}; the loss {falls}{jumped}"


@checked
def find_learning_rate(
    config: Config | str | Path,
    *,
    steps: Annotated[int, at_least(20)] = 200,
    folder: str | Path | None = None,
) -> LearningRates:
    """Finds a learning rate: trains the model of `config` with a rate that grows exponentially
    from 1e-6 to 1, and looks where the loss falls. Ignores the schedules, the warm-up and the
    number of steps of `config`. Source: Smith, arXiv 1506.01186.

    The suggestion is a first value: on four configurations it was 2.1, 1.1, 0.6 and 0.3 times
    the best rate of a sweep in factors of two.

    **Arguments:**

    - `config`: a configuration, or the path of its YAML file.
    - `steps`: steps from the lowest rate to the highest. It ends when the loss explodes.
    - `folder`: the folder for `learning_rate.png` and `learning_rate.json`. Default: none.

    **Raises:** `InputError` if the loss is not finite from the start.
    """
    config = as_config(config).changed("training", schedule=())
    training = config.training
    growth = math.log(HIGHEST / LOWEST) / (steps - 1)
    task, model, key, *_ = build_start(config)
    rate: optax.Schedule = lambda step: LOWEST * jnp.exp(growth * step)  # noqa: E731
    optimizer = update_rule(config.optimizer, rate)
    state, static = initial_state(model, optimizer, key)
    loss_of = objective(task.loss, training)
    step = make_train_step(optimizer, static, loss_of, accumulate=training.accumulate)
    losses: list[float] = []
    lowest = math.inf
    with TrainingProgress(steps, 0) as progress:
        progress.say(f"{config.name}: looking for a learning rate")
        for number in range(steps):
            state, metrics = step(state, task.batch(number, training.batch_size, training.seed))
            loss = float(metrics["loss"])
            if not math.isfinite(loss):
                break
            losses.append(loss)
            progress.show_step(number + 1, f"loss {loss:.4f}")
            recent = float(np.mean(losses[-_SMOOTHED_OVER:]))
            lowest = min(lowest, recent)
            if recent > max(_EXPLODED * lowest, losses[0]):
                break
    if len(losses) < 2:
        raise InputError(f"The loss is not finite at any rate; take {better_solve(model)}.")
    found = _suggested((LOWEST * np.exp(growth * np.arange(len(losses)))).tolist(), losses)
    if folder is not None:
        write_json(Path(folder, "learning_rate.json"), found._asdict())
        _plot(Path(folder, "learning_rate.png"), found, task.loss.label)
    return found


def _suggested(rates: list[float], losses: list[float]) -> LearningRates:
    from scipy.ndimage import gaussian_filter1d

    # A mean over the past only would shift the fall to higher rates.
    smoothed = gaussian_filter1d(losses, _SMOOTHED_OVER, mode="nearest")
    least = int(np.argmin(smoothed))
    lowest = rates[least]
    fastest = None
    suggestion = None
    jump = None
    if least:
        fastest = rates[int(np.argmin(np.gradient(smoothed)[: least + 1]))]
        suggestion = min(_FACTOR * fastest, lowest)
        above = np.asarray(losses) - smoothed > (smoothed[0] - smoothed[least]) / 2
        jumps = (rates[number] for number in np.flatnonzero(above))
        jump = next((rate for rate in jumps if rate <= suggestion), None)
    return LearningRates(rates, losses, smoothed.tolist(), fastest, lowest, suggestion, jump)


def _plot(path: Path, found: LearningRates, label: str) -> None:
    from ...figures import Curve, plot_panels

    losses = {"one batch": found.losses, "smoothed": found.smoothed}
    curves = [Curve(name, found.rates, y) for name, y in losses.items()]
    for name in ("fastest", "suggestion", "lowest"):
        if (rate := getattr(found, name)) is not None:
            at = np.interp(np.log(rate), np.log(found.rates), found.smoothed)
            curves.append(Curve(f"{name} {rate:.1e}", [rate], [at]))
    look = dict(title="Test of learning rates", x="learning rate", y=label)
    plot_panels(path, {"": curves}, **look, log="xy")
