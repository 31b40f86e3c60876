"""Options of an evaluation reach what it measures, or are refused."""

from pathlib import Path

import pytest

from ide_transformer import InputError, tasks, training
from ide_transformer.training import (
    LoadedModel,
    build_task,
    evaluation,
    evaluation_task,
    loading,
)


@pytest.fixture
def loaded(monkeypatch):
    """Makes what is evaluated, without a model and a run."""
    monkeypatch.setattr(evaluation, "run_task", lambda run, config, **_: build_task(config))
    return _loaded


def _loaded(name, context, **options):
    tree = {
        "data": {"name": name, "options": options},
        "model": {"kind": "language_model", "context": context},
    }
    config = training.Config.model_validate(tree)
    return LoadedModel(None, training.RunFolder("run"), Path("run"), config)


@pytest.mark.parametrize(
    ("name", "options", "tokens"),
    [
        ("training.mine:Unsized", {}, 6),
        ("parity", {"lengths": [1, 4]}, 5),
        ("list_ops", {"longest": 18}, 18),
    ],
)
def test_a_context_that_no_sample_has(loaded, name, options, tokens):
    """Each context had a row, all of them measured on the same samples."""
    run = loaded(name, 20, **options)
    assert evaluation_task(run).tokens_per_sample == tokens
    for context in (20, 40):
        with pytest.raises(InputError, match=f"tokens={context}: .* have {tokens} tokens"):
            evaluation_task(run, tokens=context)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("p_hop", {"hops": 1}),
        ("training.mine:Counting", {}),
        ("burgers_interval", {"held_out_samples": 2}),
    ],
)
def test_a_context_that_samples_have(loaded, name, options):
    run = loaded(name, 20, **options)
    assert evaluation_task(run, tokens=12).tokens_per_sample == 12


def test_a_part_that_a_task_leaves_out(loaded):
    task = evaluation_task(loaded("training.mine:Unsized", 20))
    with pytest.raises(InputError, match=r"part=test: Unsized\.held_out gives the samples of"):
        evaluation.check_part(task, "test")
    evaluation.check_part(task, "validation", 4)
    for samples in (None, 1, 7, 600):
        evaluation.check_part(tasks.PHop(16, hops=1), "test", samples)


def test_a_context_on_the_command_line_that_nothing_takes(loaded):
    config = loaded("training.mine:Unsized", 20).config
    functions = config.model.model_copy(update={"kind": "training.mine:sizeless"})
    with pytest.raises(InputError, match=r"model\.context=20: neither .*Unsized nor"):
        loading._check_context(config.model_copy(update={"model": functions}))
    loading._check_context(config)
