"""A short run, and runs that are written as if they had been made."""

import copy
import json

import jax
import pytest
import yaml

from ide_transformer import training
from ide_transformer.compare import load_comparison
from ide_transformer.compare.train_schemes import TrainingComparison
from ide_transformer.training.setup import Setup
from tests.training import stub


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The folder of a short run on a text that is beside it."""
    folder = tmp_path_factory.mktemp("tiny")
    changes = ["model.operators=[damping]", "model.layers=4", "training.steps=3"]
    changes += [f"training.{x}=3" for x in ("evaluate_every", "checkpoint_every")]
    with stub.known():
        return stub.train(folder, *changes, **stub.tree_of_text(folder)).path


class Runs:
    """Writes runs: by name, the loss falls by one a step to the given one. Heun's method makes
    two evaluations where the others make one, and half as many tokens a second."""

    def __init__(self):
        self.made, self.source, self.losses = [], "0.1 (abc)", {}

    def loss(self, config):
        scheme, _, seed = config.name.rpartition("-seed")
        return self.losses[scheme][int(seed)]

    def train(self, config, *, runs, resume):
        self.made.append(config.name)
        loss, steps = self.loss(config), config.training.steps
        run = training.RunFolder(runs / config.name)
        run.path.mkdir(parents=True)
        run.config.write_text(training.dump_config(config))
        task = training.build_task(config)
        task.save(run.tokenizer)
        recorded = {"run": "0", "sources": [self.source], "its data": task.fingerprint()}
        run.fingerprints.write_text(json.dumps(recorded))
        cost = 1 + (config.solver.kind == "heun")
        summary = {"steps": steps, "nfe": 2 * cost, "parameters": 7, "seconds": 90.0}
        summary |= {"validation_loss": loss, "test_loss": 2 * loss}
        run.summary.write_text(json.dumps(summary))
        rates = {"tokens_per_second": 9.0 / cost, "field_evaluations": 2 * cost}
        lines = []
        for step in range(steps // 4, steps + 1, steps // 4):
            lines += [{"step": step, "loss": loss, **rates}]
            lines += [{"step": step, "validation_loss": loss + steps - step}]
        run.metrics.write_text("\n".join(map(json.dumps, lines)) + "\n")


@pytest.fixture
def runs(monkeypatch):
    runs = Runs()
    monkeypatch.setattr(training, "train", runs.train)
    monkeypatch.setattr(TrainingComparison, "draw", lambda *_: None)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    monkeypatch.setattr(Setup, "check_shapes", lambda _: None)
    return runs


@pytest.fixture
def compare(runs, tmp_path):
    """Makes a comparison that was changed in some keys, `a/b/c` to their values."""
    tree = stub.tree_of_text(tmp_path)
    tree["model"] |= {"layers": 1, "operators": ["damping"], "positions": "rotary"}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tree))

    def make(tree, **changes):
        tree = copy.deepcopy(tree)
        for key, value in changes.items():
            *above, last = key.split("/")
            section = tree
            for part in above:
                section = section.setdefault(part, {})
            section[last] = value
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        return load_comparison(tmp_path / "small.yaml").compare(tmp_path / "compared")

    return make


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "compared/small"
