"""A run from its configuration to its summary."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..models import AbstractModel, LanguageModel, generate
from ..reporting import plot_curves
from ..tasks import AbstractTask, AbstractTokenizer, LanguageTask, cross_entropy, load_tokenizer
from .build import build_language_model, build_model, build_task
from .build_discretization import for_training
from .checkpoint import Checkpoints
from .config import Config
from .folder import RunFolder, new_folder, resumed_folder
from .interrupt import StopRequest
from .memory import describe_memory
from .metrics import MetricsLog, cut_metrics, read_metrics
from .optimizer import build_optimizer
from .progress import TrainingProgress
from .step import TrainState, initial_state, make_evaluation, make_train_step


_EVALUATION_BATCH = 64


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
    task = build_task(config)
    model_key, training_key = jax.random.split(jax.random.key(config.training.seed))
    model = for_training(build_model(config, task, model_key), config.training)
    # What does not fit together fails here, before anything is written.
    first = task.batch(0, config.training.batch_size, config.training.seed)
    eqx.filter_eval_shape(cross_entropy, model, first)
    folder = resumed_folder(config, runs) if resume else new_folder(config, runs)
    if isinstance(task, LanguageTask):
        task.tokenizer.save(folder.tokenizer)
    optimizer = build_optimizer(config.optimizer, config.training.steps)
    state, static = initial_state(model, optimizer, training_key)
    evaluate = make_evaluation(static)
    with Checkpoints(folder.checkpoints) as checkpoints:
        if checkpoints.latest() is not None:
            state = checkpoints.restore(state)
        cut_metrics(folder.metrics, int(state.step))
        train_step = make_train_step(
            optimizer,
            static,
            noisy=config.model.dropout > 0,
            transport=config.training.transport,
        )
        state = _loop(config, folder, task, model, state, train_step, evaluate, checkpoints)
    held_out = evaluate(state.weights, task, _EVALUATION_BATCH)
    model = eqx.combine(state.weights, static)
    _plot(folder, task, model, {"step": config.training.steps, **held_out})
    if isinstance(model, LanguageModel) and config.training.sample:
        assert isinstance(task, LanguageTask)
        text = sample_text(model, task.tokenizer, length=config.training.sample)
        folder.sample.write_text(text + "\n", encoding="utf-8")
    log = [line for line in read_metrics(folder.metrics) if "loss" in line]
    summary = {
        **held_out,
        "steps": config.training.steps,
        "parameters": num_parameters(state),
        "nfe": log[-1]["field_evaluations"],
        "seconds": round(time.perf_counter() - began, 1),
    }
    folder.summary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return folder


def load_run(path: Path) -> tuple[AbstractModel, RunFolder]:
    """The trained model of a run, from its newest checkpoint.

    **Raises:** `InputError` if `path` is not the folder of a run with a checkpoint.
    """
    folder = RunFolder(path)
    config = folder.load_config()
    key = jax.random.key(0)  # the weights that it draws are replaced below
    if folder.tokenizer.exists():
        # The text itself is not needed to go on writing.
        model = build_language_model(config, load_tokenizer(folder.tokenizer).vocabulary, key)
    else:
        model = build_model(config, build_task(config), key)
    optimizer = build_optimizer(config.optimizer, config.training.steps)
    state, static = initial_state(model, optimizer, key)
    with Checkpoints(folder.checkpoints) as checkpoints:
        state = checkpoints.restore(state)
    return eqx.combine(state.weights, static), folder


def sample_text(
    model: LanguageModel,
    tokenizer: AbstractTokenizer,
    *,
    length: int,
    prompt: str = "\n",
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> str:
    """Text that the model writes after `prompt`, the prompt included.

    **Arguments:**

    - `tokenizer`: the one that belongs to the model.
    - `length`: tokens to write.
    - `temperature`, `top_k`, `top_p`: as of `generate`.
    """
    tokens = generate(
        model,
        jnp.asarray(tokenizer.encode(prompt), int),
        length,
        key=jax.random.key(seed),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    return tokenizer.decode(np.asarray(tokens))


def num_parameters(state: TrainState) -> int:
    return sum(x.size for x in jax.tree.leaves(state.weights))


def _loop(
    config: Config,
    folder: RunFolder,
    task: AbstractTask,
    model: AbstractModel,
    state: TrainState,
    train_step: Any,
    evaluate: Callable[..., dict[str, float]],
    checkpoints: Checkpoints,
) -> TrainState:
    """The training loop. It waits for the device at evaluations and checkpoints only."""
    training = config.training
    start = int(state.step)
    with TrainingProgress(training.steps, start) as progress:
        done = f", going on from step {start}" if start else ""
        progress.say(f"{folder.path}: {num_parameters(state):,} parameters{done}")
        log = MetricsLog(
            folder.metrics, training.batch_size * task.tokens_per_sample, progress.show
        )
        if start < training.steps:
            batch = task.batch(start, training.batch_size, training.seed)
            train_step = train_step.lower(state, batch).compile()
            temporary = train_step.memory_analysis().temp_size_in_bytes
            progress.say(describe_memory(model, state, batch, temporary))
        log.restart_clock(start)
        with StopRequest() as stop, contextlib.closing(log):
            for step in range(start + 1, training.steps + 1):
                batch = task.batch(step - 1, training.batch_size, training.seed)
                state, metrics = train_step(state, batch)
                last = step == training.steps
                if step % training.log_every == 0 or last:
                    log.train(step, metrics)
                if step % training.evaluate_every == 0 and not last:
                    log.flush()
                    samples = training.evaluate_samples
                    values = evaluate(state.weights, task, _EVALUATION_BATCH, samples)
                    log.held_out(step, values)
                    log.restart_clock(step)
                if step % training.checkpoint_every == 0 or last or stop.requested:
                    log.flush()
                    checkpoints.save(step, state)
                    log.restart_clock(step)
                if stop.requested and not last:
                    progress.say(f"Stopped after step {step}; go on with --resume.")
                    raise KeyboardInterrupt
    return state


def _plot(folder: RunFolder, task: AbstractTask, model: AbstractModel, end: dict) -> None:
    """The loss over the run, and the size of the state over depth."""
    lines = [*read_metrics(folder.metrics), end]
    held_out = f"{task.held_out_name}_loss"
    plot_curves(
        folder.plots / "loss.png",
        {
            name: _column(lines, key)
            for name, key in (("training", "loss"), (task.held_out_name, held_out))
        },
        x="step",
        y="cross-entropy (nats)",
    )
    batch = next(task.held_out(_EVALUATION_BATCH))
    knots = model.equation.knots
    us = model.solve(batch.inputs, saveat=diffrax.SaveAt(ts=jnp.asarray(knots))).us
    features = tuple(range(1, us.ndim))
    plot_curves(
        folder.plots / "state_norm.png",
        {
            "state": (knots, jnp.sqrt(jnp.mean(us**2, axis=features))),
            "increment": (
                knots[1:],
                jnp.sqrt(jnp.mean(jnp.diff(us, axis=0) ** 2, features)),
            ),
        },
        x="depth t (layers)",
        y="root mean square over tokens and features",
        marker="o",
    )


def _column(lines: list[dict], key: str) -> tuple[list[int], list[float]]:
    chosen = [line for line in lines if line.get(key) is not None]
    return [line["step"] for line in chosen], [line[key] for line in chosen]
