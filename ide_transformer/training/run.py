"""Runs: trained, loaded, and made from a checkpoint or into one."""

import time
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from ..arguments import checked
from ..errors import InputError
from ..models import AbstractModel
from ..pretrained import find_pretrained, save_pretrained
from ..reporting import plot_curves, write_json
from ..tasks import AbstractTask, PretrainedTokenizer, cross_entropy
from .build import build_model, build_model_of_size, build_task, task_class, with_training
from .config import Config
from .folder import Checkpoints, RunFolder, begin_data, check_data, new_folder, resumed_folder
from .loop import EVALUATION_BATCH, Loop
from .metrics import cut_metrics, read_metrics
from .optimizer import build_optimizer
from .reading import validated
from .step import initial_state, make_evaluation, make_train_step, num_parameters


@checked
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
    if resume:
        folder = resumed_folder(config, runs)
        check_data(folder, task)
    else:
        folder = new_folder(config, runs)
        begin_data(folder, task)
    optimizer = build_optimizer(config.optimizer, training.steps)
    state, static = initial_state(model, optimizer, training_key)
    evaluate = make_evaluation(static)
    noisy = config.model.dropout > 0
    step = make_train_step(optimizer, static, noisy=noisy, transport=training.transport)
    with Checkpoints(folder.checkpoints) as checkpoints:
        if checkpoints.latest() is not None:
            state = checkpoints.restore(state)
            checkpoints.set_damaged_aside()
        if int(state.step) == training.steps and folder.summary.exists():
            return folder  # nothing is left to do
        cut_metrics(folder.metrics, int(state.step))
        loop = Loop(training, task, folder, checkpoints, step, evaluate)
        state = loop.run(state, model)
    held_out = evaluate(state.weights, task, EVALUATION_BATCH)
    model = eqx.combine(state.weights, static)
    plot_run(folder, task, model, {"step": training.steps, **held_out})
    text = task.sample(model, training.sample) if training.sample else None
    if text is not None:
        folder.sample.write_text(text + "\n", encoding="utf-8")
    logged = [line for line in read_metrics(folder.metrics) if "loss" in line]
    summary = {
        **held_out,
        "steps": int(state.step),
        "parameters": num_parameters(state),
        "nfe": logged[-1]["field_evaluations"],
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(folder.summary, summary)
    return folder


@checked
def load_run(path: str | Path) -> tuple[AbstractModel, RunFolder]:
    """The trained model of a run, from its newest checkpoint, and its folder. The folder's
    `load_tokenizer` gives what `generate` needs to write text.

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


def import_pretrained(path: str, name: str, runs: Path) -> RunFolder:
    """A run at step 0 with the weights and the tokenizer of the checkpoint of a language
    model, solved by its native scheme.

    **Arguments:**

    - `path`: see `load_pretrained`.
    - `name`: of the run, in the folder `runs`.
    """
    found = find_pretrained(path)
    tokenizer = PretrainedTokenizer.from_pretrained(found)
    # A path is kept whole, so that the run can be read from anywhere.
    kept = str(found.resolve()) if Path(path).exists() else path
    config = validated(Config, {"name": name, "model": {"pretrained": kept}}, f"{runs / name}")
    key = jax.random.key(config.training.seed)
    model = build_model_of_size(config, {"vocabulary": tokenizer.vocabulary}, key)
    optimizer = build_optimizer(config.optimizer, config.training.steps)
    state, _ = initial_state(model, optimizer, key)
    folder = new_folder(config, runs)
    tokenizer.save(folder.tokenizer)
    with Checkpoints(folder.checkpoints) as checkpoints:
        checkpoints.save(0, state)
    return folder


def export_run(run: Path, path: Path) -> None:
    """The weights of a run that began from a checkpoint, in the layout of that checkpoint.

    **Raises:** `InputError` for a run that did not, or is solved by another scheme.
    """
    model, folder = load_run(run)
    source = folder.load_config().model.pretrained
    if source is None:
        raise InputError(
            f"{run} did not begin from a checkpoint (model.pretrained), so there is no layout "
            "to write it in; load it with ide_transformer.training.load_run."
        )
    save_pretrained(model, path, like=source)


def plot_run(
    folder: RunFolder, task: AbstractTask, model: AbstractModel, end: dict[str, Any]
) -> None:
    """Plots the loss over the run, with the step and the held-out loss at its end, and the size
    of the state over depth."""
    lines = [*read_metrics(folder.metrics), end]
    losses = {}
    for name, key in (("training", "loss"), (task.held_out_name, f"{task.held_out_name}_loss")):
        logged = [line for line in lines if line.get(key) is not None]
        losses[name] = [line["step"] for line in logged], [line[key] for line in logged]
    plot_curves(folder.plots / "loss.png", losses, x="step", y="cross-entropy (nats)")
    batch = next(task.held_out(EVALUATION_BATCH))
    knots = model.equation.knots
    us = model.solve(batch.inputs, saveat=diffrax.SaveAt(ts=jnp.asarray(knots))).us
    axes = tuple(range(1, us.ndim))
    plot_curves(
        folder.plots / "state_norm.png",
        {
            "state": (knots, jnp.sqrt(jnp.mean(us**2, axes))),
            "increment": (knots[1:], jnp.sqrt(jnp.mean(jnp.diff(us, axis=0) ** 2, axes))),
        },
        x="depth t (layers)",
        y="root mean square over tokens and features",
        marker="o",
    )
