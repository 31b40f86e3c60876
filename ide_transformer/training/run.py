"""A run from its configuration to its summary."""

import json
import time
from pathlib import Path

import equinox as eqx
import jax

from ..models import AbstractModel
from ..tasks import cross_entropy
from .build import build_model, build_model_of_size, build_task, task_class
from .build_discretization import with_training
from .checkpoint import Checkpoints
from .config import Config
from .curves import plot_run
from .folder import RunFolder, new_folder, resumed_folder
from .loop import EVALUATION_BATCH, Loop
from .metrics import cut_metrics, read_metrics
from .optimizer import build_optimizer
from .step import TrainState, initial_state, make_evaluation, make_train_step, num_parameters


def train(config: Config, *, runs: Path = Path("runs"), resume: bool = False) -> RunFolder:
    """Trains the model of `config` and writes the folder of the run.

    **Arguments:**

    - `runs`: the folder of all runs.
    - `resume`: go on from the last checkpoint of the newest run of that name. What is
      learned and logged is the same, to the bit, as if the run had never stopped.

    **Raises:** `InputError` for input that cannot be used, or a loss that is not finite;
    `KeyboardInterrupt` when it was stopped, after saving a checkpoint.
    """
    began = time.perf_counter()
    training = config.training
    task = build_task(config)
    model_key, training_key = jax.random.split(jax.random.key(training.seed))
    model = with_training(build_model(config, task, model_key), training)
    # What does not fit together fails here, before anything is written.
    first = task.batch(0, training.batch_size, training.seed)
    eqx.filter_eval_shape(cross_entropy, model, first)
    folder = resumed_folder(config, runs) if resume else new_folder(config, runs)
    task.save(folder.tokenizer)
    optimizer = build_optimizer(config.optimizer, training.steps)
    state, static = initial_state(model, optimizer, training_key)
    evaluate = make_evaluation(static)
    noisy = config.model.dropout > 0
    step = make_train_step(optimizer, static, noisy=noisy, transport=training.transport)
    with Checkpoints(folder.checkpoints) as checkpoints:
        if checkpoints.latest() is not None:
            state = checkpoints.restore(state)
        cut_metrics(folder.metrics, int(state.step))
        loop = Loop(training, task, folder, checkpoints, step, evaluate)
        state = loop.run(state, model)
    held_out = evaluate(state.weights, task, EVALUATION_BATCH)
    model = eqx.combine(state.weights, static)
    plot_run(folder, task, model, {"step": training.steps, **held_out})
    text = task.sample(model, training.sample) if training.sample else None
    if text is not None:
        folder.sample.write_text(text + "\n", encoding="utf-8")
    _summarize(folder, state, held_out, time.perf_counter() - began)
    return folder


def load_run(path: Path) -> tuple[AbstractModel, RunFolder]:
    """The trained model of a run, from its newest checkpoint.

    **Raises:** `InputError` if `path` is not the folder of a run with a checkpoint.
    """
    folder = RunFolder(path)
    config = folder.load_config()
    key = jax.random.key(0)  # the weights that it draws are replaced below
    sizes = task_class(config).saved_sizes(folder.tokenizer)
    sizes = build_task(config).sizes if sizes is None else sizes
    model = build_model_of_size(config, sizes, key)
    optimizer = build_optimizer(config.optimizer, config.training.steps)
    state, static = initial_state(model, optimizer, key)
    with Checkpoints(folder.checkpoints) as checkpoints:
        state = checkpoints.restore(state)
    return eqx.combine(state.weights, static), folder


def _summarize(
    folder: RunFolder, state: TrainState, held_out: dict[str, float], seconds: float
) -> None:
    """Writes `summary.json`."""
    log = [line for line in read_metrics(folder.metrics) if "loss" in line]
    summary = {
        **held_out,
        "steps": int(state.step),
        "parameters": num_parameters(state),
        "nfe": log[-1]["field_evaluations"],
        "seconds": round(seconds, 1),
    }
    folder.summary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
