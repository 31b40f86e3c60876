from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from ...dynamics import Target, keep_layers
from ...models import Model
from .problem import Problem


class Trial(NamedTuple):
    """One solve on the held-out batch.

    - `evaluations`: field evaluations.
    - `error`: relative to the native model.
    - `losses`: of each sample.
    """

    evaluations: float
    error: float
    losses: np.ndarray


class Trials:
    """Rows of measurements on the held-out batch. The first is that of the native model.

    - `rows`: with `method`, `field_evaluations`, `loss`, `change` (of the loss, against the
      native one), `uncertainty` (the standard error of that change over samples, which are
      the same for both), `error` (relative to the native model) and `layers`.
    - `losses`: for each row, the loss of each sample.
    """

    def __init__(self, model: Model, problem: Problem):
        self._model, self._problem = model, problem
        self._kept: dict[tuple[int, ...], Trial] = {}
        self.native_state, evaluations = self.state(model)
        outputs = model.read_out(self.native_state)
        self._target = Target(problem.held_out, outputs, problem.read)
        self.native = self.judge(self.native_state, evaluations)
        self.rows: list[dict[str, Any]] = []
        self.losses: list[np.ndarray] = []
        self.add("native", self.native)

    def solve(self, model: Model) -> Trial:
        """Solves the held-out batch with a model that reads out as the native one does."""
        return self.judge(*self.state(model))

    def state(self, model: Model) -> tuple[Array, float]:
        """The state of a model at depth T, NaN where the solve failed, and its evaluations."""
        state, evaluations = solved_batch(model, self._problem.held_out)
        return state, float(evaluations)

    def keep(self, layers: tuple[int, ...]) -> Trial:
        """Solves with some of the native layers only; each choice is solved once."""
        if layers not in self._kept:
            self._kept[layers] = self.solve(keep_layers(self._model, layers))
        return self._kept[layers]

    def judge(self, state: Array, evaluations: float) -> Trial:
        """The trial that ended in a state."""
        outputs = self._model.read_out(state)
        error = float(self._target.output_error(self._model, outputs))
        return Trial(evaluations, error, np.asarray(self._problem.losses(outputs)))

    def add(self, method: str, trial: Trial, layers: str = "") -> None:
        """Adds a row; without numbers where the solve failed."""
        change = trial.losses - self.native.losses
        measured = {
            "loss": float(np.mean(trial.losses)),
            "change": float(np.mean(change)),
            "uncertainty": standard_error(change),
            "error": trial.error,
        }
        if not np.isfinite(trial.error):
            measured = dict.fromkeys(measured)
        row = {"method": method, "field_evaluations": trial.evaluations}
        self.rows.append({**row, **measured, "layers": layers})
        self.losses.append(trial.losses)


@eqx.filter_jit
def solved_batch(model: Model, inputs: PyTree[ArrayLike]) -> tuple[Array, Array]:
    """The state at depth T, NaN where the solve failed, and its field evaluations, the mean
    over samples that have steps of their own."""
    solution = model.solve(inputs)
    u1 = jnp.where(jnp.all(solution.succeeded), solution.u1, jnp.nan)
    return u1, jnp.mean(solution.stats["field_evaluations"])


def compare_budgets(
    rows: Sequence[dict[str, Any]],
    losses: Sequence[np.ndarray],
    *,
    ours: Collection[str],
    theirs: Collection[str],
) -> list[dict[str, Any]]:
    """For each number of field evaluations, the method of least loss among `ours` and among
    `theirs`, with the loss of each, `difference` (ours minus theirs) and `uncertainty`, the
    standard error of that difference over samples.

    Both methods are the best on these very samples. The standard error takes them as fixed
    before: it does not know of that choice, which favours the side with more methods.

    **Arguments:**

    - `rows`: with `method`, `field_evaluations`, `loss`.
    - `losses`: for each row, the loss of each sample; the same samples for all.
    """

    def best(budget: float, methods: Collection[str]) -> int | None:
        found = [
            index
            for index, row in enumerate(rows)
            if row["field_evaluations"] == budget
            and row["method"] in methods
            and row["loss"] is not None
        ]
        return min(found, key=lambda index: rows[index]["loss"], default=None)

    table = []
    for budget in sorted({row["field_evaluations"] for row in rows}, reverse=True):
        mine, other = best(budget, ours), best(budget, theirs)
        if mine is None or other is None:
            continue
        change = losses[mine] - losses[other]
        table.append(
            {
                "field_evaluations": budget,
                "coarsening": rows[mine]["method"],
                "loss": rows[mine]["loss"],
                "layer_dropping": rows[other]["method"],
                "its_loss": rows[other]["loss"],
                "difference": float(np.mean(change)),
                "uncertainty": standard_error(change),
            }
        )
    return table


def standard_error(values: np.ndarray) -> float | None:
    """The standard error of the mean of independent values; `None` for a single one."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))
