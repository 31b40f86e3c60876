"""Options of an evaluation reach what it measures, or are refused."""

import equinox as eqx
import pytest
from running import run_here
from training import stub

import ide_transformer as ide
from ide_transformer import InputError, tasks, training
from ide_transformer.training import evaluation, loading
from ide_transformer.training.folder import new_folder


@pytest.fixture
def loaded(monkeypatch):
    """Makes what is evaluated, without a model and a run."""
    build = training.build_task
    monkeypatch.setattr(evaluation, "run_task", lambda run, config, **_: build(config))

    def make(name, **options):
        config = stub.config(data={"name": name, "options": options}, model={"context": 20})
        return training.LoadedModel(None, training.RunFolder("run"), "run", config)

    return make


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
    run = loaded(name, **options)
    assert training.evaluation_task(run).tokens_per_sample == tokens
    for context in (20, 40):
        with pytest.raises(InputError, match=f"tokens={context}: .* have {tokens} tokens"):
            training.evaluation_task(run, tokens=context)


@pytest.mark.parametrize(
    ("name", "options"),
    [("p_hop", {"hops": 1}), ("stub", {}), ("burgers_interval", {"held_out_samples": 2})],
)
def test_a_context_that_samples_have(loaded, name, options):
    run = loaded(name, **options)
    assert training.evaluation_task(run, tokens=12).tokens_per_sample == 12


def test_what_a_task_leaves_out(loaded):
    task = training.evaluation_task(loaded("training.mine:Unsized"))
    with pytest.raises(InputError, match=r"part=test: Unsized\.held_out gives the samples of"):
        evaluation.check_part(task, "test")
    evaluation.check_part(task, "validation", 4)
    for samples in (None, 1, 7, 600):
        evaluation.check_part(tasks.PHop(16, hops=1), "test", samples)
    config = loaded("training.mine:Unsized").config
    loading._check_context(config)
    functions = config.model.model_copy(update={"kind": "training.mine:sizeless"})
    with pytest.raises(InputError, match=r"model\.context=20: neither .*Unsized nor"):
        loading._check_context(config.model_copy(update={"model": functions}))


PARITY = {
    "data": {"name": "parity", "options": {"lengths": [1, 4]}},
    "model": {
        "operators": ["stable_damping", "injection", "attention", "feed_forward"],
        **{"options": {"learned_positions": False}, "context": 5},
    },
    "control": "tied",
}
WORDS = {"data": {"name": "word_problem", "options": {"lengths": [1, 4], "degree": 2}}}
LONGER = ("data.options.held_out_lengths=[5,8]", "model.context=9")


@pytest.mark.parametrize(
    ("sections", "override", "message"),
    [
        (PARITY, LONGER[0], r"model\.context=5 is too short: .* Set model\.context=9"),
        (PARITY, "data.options.held_out_length=[5,8]", "Did you mean held_out_lengths"),
        (
            PARITY,
            "data.options.held_out_lengths=[8,5]",
            r"shortest comes first; write \[5, 8\]",
        ),
        (PARITY, "data.name=addition", r"data\.name: the weights are given; only solver"),
        (PARITY, "control.kind=tied", r"control\.kind: the weights are given"),
        (WORDS, "data.options.degree=3", r"vocabulary=6.* trained for vocabulary=2"),
        (WORDS, "model.context=9", r"model\.context=9: .* embedding of its 4 positions"),
    ],
)
def test_what_does_not_fit_the_weights_is_refused(sections, override, message, tmp_path):
    config = stub.config(**sections)
    run = new_folder(config, tmp_path, training.build_task(config).save)
    with pytest.raises(InputError, match=message):
        training.load_model(run.path, [override])


@pytest.mark.heavy
def test_a_trained_model_on_longer_inputs(tmp_path, capsys):
    run = stub.train(tmp_path, **PARITY)
    loaded = training.load_model(run.path, LONGER)
    task = training.evaluation_task(loaded)
    assert task.batch(0, 1, 0).inputs.shape == (1, 5)
    batch = next(task.held_out(16, 16))
    assert batch.inputs.shape == (16, 9)
    (row,) = training.evaluate_on_meshes(loaded, [ide.Mesh(horizon=5.0)], samples=16)
    loss = eqx.filter_jit(task.loss)(loaded.model.on(ide.Mesh(horizon=5.0)), batch).loss
    assert row["evaluations"] == 5 and row["loss"] == pytest.approx(float(loss), rel=1e-5)
    command = ("evaluate.py", run.path, *LONGER, "--samples", 16, "--mesh", "horizon=2,5")
    figure = ("--measure", "exact_match", "--figure", tmp_path / "figure.png")
    assert "exact_match" in run_here(capsys, *command, *figure)
