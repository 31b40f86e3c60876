"""A task of ten lines that configurations name `stub`, and tiny runs on it, all of the same
sizes, so that their programs are compiled once."""

import contextlib
import functools as ft
import shutil
import sys

import equinox as eqx
import jax
import numpy as np
import pytest

from ide_transformer import models, tasks, training
from ide_transformer.tasks.task import in_parts
from ide_transformer.training.configuration import files, names
from ide_transformer.training.folder.checkpoints import Checkpoints
from ide_transformer.training.folder.run_folder import new_folder
from ide_transformer.training.setup import setup
from ide_transformer.training.steps import build
from tests.helpers import filled
from tests.running import logged


class Stub(tasks.AbstractTask):
    """Predict the next of the tokens 0, 1, 2, 3, 4, 0, 1, …"""

    model, sizes = models.LanguageModel, {"vocabulary": 5}

    def __init__(self, context: int):
        self.context = context

    def with_tokens(self, tokens):
        return Stub(tokens) if tokens <= 5 else super().with_tokens(tokens)

    def batch(self, step, size, seed):
        starts = np.random.default_rng([seed, step]).integers(0, 5, size)
        return self._windows(starts)

    def held_out(self, size, samples=None, part="validation"):
        for some in in_parts(range(32), size, samples):
            yield self._windows(some + (part == "test"))

    def _windows(self, starts):
        tokens = (starts[:, None] + np.arange(self.context + 1)) % 5
        return tasks.Batch(tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32))


@contextlib.contextmanager
def known():
    """While this lasts, as it does in the tests of this folder, configurations know the task
    and runs draw no figures."""
    with pytest.MonkeyPatch.context() as patch:
        known = names.KINDS[tasks.AbstractTask]
        modules = (*known.modules, sys.modules[__name__])
        patch.setitem(names.KINDS, tasks.AbstractTask, known._replace(modules=modules))
        patch.setattr(training.results, "plot_run", lambda *_: None)
        yield


def draw_model(config, *arguments):
    """`build_model`, without its check whether a model sees later tokens, which needs numbers.
    NumPy draws the weights, which compiles nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "check_causal", lambda *_: None)
        shapes = eqx.filter_eval_shape(build.build_model, config, *arguments)
    return filled(shapes, 0.1, seed=0)


def start_run(config, runs):
    """The folder of a run before its first step, with a checkpoint of its first weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.setup, "build_model", draw_model)
        start = setup(config)
    task = start.task
    run = new_folder(config, runs, task.save, task.fingerprint(), start.origin, task)
    with Checkpoints(run, keep=1) as checkpoints:
        checkpoints.save(0, start.phases.start(start.model, start.key))
    return run


@contextlib.contextmanager
def untrained():
    """Runs end before they begin, and NumPy draws their weights."""

    def draw_and_check(config, *arguments):
        model = draw_model(config, *arguments)
        build.needs_of(config, {}).check_causal(model)
        return model

    def would_start(*_):
        print("it would start")
        raise SystemExit(0)

    with known(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.setup, "build_model", draw_and_check)
        patch.setattr(training.run, "new_folder", would_start)
        patch.setenv("IDE_TRANSFORMER_MEMORY", "16")
        yield


def tree(**sections):
    """The sections of a run of 4 steps, logged at each, with a checkpoint after 2 and 4; those
    given are merged into them."""
    base = {
        "name": "small",
        "data": {"name": "stub"},
        "model": {"width": 4, "heads": 2, "layers": 2, "context": 4},
        "optimizer": {"warmup": 1, "learning_rate": 0.01},
        "training": {
            **{"steps": 4, "batch_size": 4, "log_every": 1, "checkpoint_every": 2},
            **{"evaluate_every": 2, "keep_best": False, "sample": 0},
        },
    }
    for key, values in sections.items():
        base[key] = base.get(key, {}) | values if isinstance(values, dict) else values
    return base


TEXT = "the sea is wide and the night is long and the wind is cold. " * 40


def tree_of_text(folder):
    """The sections of a run of 20 steps on a text, which is written."""
    (folder / "text.txt").write_text(TEXT)
    return tree(
        data={"name": "text", "path": str(folder / "text.txt")},
        model={"width": 16, "context": 8},
        optimizer={"warmup": 2},
        training={
            **{"steps": 20, "batch_size": 8, "evaluate_samples": 8},
            **{"checkpoint_every": 10, "evaluate_every": 10},
        },
    )


def config(*overrides, **sections):
    merged = tree(**sections)
    files.apply_overrides(merged, overrides)
    return read_config(merged)


def read_config(tree):
    return training.read_section(training.Config, tree, where="here")


def model_of(configuration, scale=0.3, layers=None, **sizes):
    """The model of a configuration, its weights drawn by NumPy."""
    sizes = {"vocabulary": 5, **sizes}
    build = ft.partial(training.build_model_of_size, configuration, sizes, layers=layers)
    return filled(eqx.filter_eval_shape(build, jax.random.key(0)), scale, seed=0)


def train(runs, *overrides, **sections):
    """The folder of a run; its operators are feed-forwards, which compile in half of the
    time."""
    sections["model"] = {"operators": ["feed_forward"]} | sections.get("model", {})
    return training.train(config(*overrides, **sections), runs=runs)


def resumed(run, runs, after, overrides=()):
    """A copy of a run, cut after a checkpoint and resumed from it."""
    folder = shutil.copytree(run.path, runs / run.path.name)
    (folder / "summary.json").unlink(missing_ok=True)
    for path in folder.glob("checkpoints/[0-9]*"):
        if int(path.name) > after:
            shutil.rmtree(path)
    return training.resume_run(folder, overrides)


def losses(run):
    return [line["loss"] for line in logged(run.path) if "loss" in line]
