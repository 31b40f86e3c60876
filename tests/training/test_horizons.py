"""Horizons that are drawn in training, and a trained model on longer inputs."""

import json
import shutil

import equinox as eqx
import pytest
from running import logged, run_here

import ide_transformer as ide
from ide_transformer import training


def config(*, control="tied", meshes=({"horizon": 2}, {"horizon": 3}), **model):
    return training.Config.model_validate(
        {
            "name": "longer",
            "data": {"name": "parity", "options": {"lengths": [1, 4]}},
            "model": {
                "width": 8,
                "heads": 2,
                "depth": 2,
                "context": 5,
                "operators": ["stable_damping", "injection", "attention", "feed_forward"],
                "options": {"learned_positions": False},
                **model,
            },
            "control": control,
            "optimizer": {"warmup": 1},
            "training": {
                "steps": 8,
                "batch_size": 4,
                "log_every": 1,
                "checkpoint_every": 4,
                "evaluate_every": 4,
                "evaluate_samples": 64,
                "sample": 0,
                "meshes": list(meshes),
            },
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.run, "plot_run", lambda *_: None)
        yield training.train(config(), runs=tmp_path_factory.mktemp("runs"))


@pytest.mark.heavy
def test_a_run_with_horizons_goes_on_to_the_same_bits(run, tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    whole, end = logged(run.path), training.load_run(run.path)[0]
    evaluations = {line["field_evaluations"] for line in whole if "loss" in line}
    assert evaluations == {2.0, 3.0}
    again = tmp_path / "runs" / "longer"
    shutil.copytree(run.path, again)
    shutil.rmtree(again / "checkpoints" / "8")
    (again / "summary.json").unlink()
    training.resume_run(again)
    assert logged(again) == whole
    assert eqx.tree_equal(training.load_run(again)[0], end)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(control="chebyshev"),
            r"training\.meshes\.0=\{horizon: 2\.0\}: Chebyshev gives weights at depths from",
        ),
        (
            dict(meshes=[2, {"horizon": 0.5}]),
            r"training\.meshes\.1=\{horizon: 0\.5\}: .* multiple .* 1, for example 1",
        ),
        (dict(meshes=[{"horizon": 0}]), r"training\.meshes\.0\.horizon"),
    ],
)
def test_horizons_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path, changes, message
):
    with pytest.raises((ide.InputError, ValueError), match=message):
        training.train(config(**changes), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.heavy
def test_a_trained_model_is_evaluated_over_other_horizons_on_longer_inputs(
    run, tmp_path, capsys
):
    longer = ("data.options.held_out_lengths=[5,8]", "model.context=9")
    files = ("--json", tmp_path / "rows.json", "--figure", tmp_path / "figure.png")
    run_here(
        *(capsys, "evaluate.py", run.path, *longer, "--mesh", "horizon=2,5"),
        *("--samples", 32, "--measure", "exact_match", *files),
    )
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["horizon"], row["evaluations"]) for row in rows] == [(2, 2), (5, 5)]
    loaded = training.load_model(run.path, longer)
    task = training.evaluation_task(loaded)
    assert task.batch(0, 1, 0).inputs.shape == (1, 5)
    batch = next(task.held_out(32, 32))
    assert batch.inputs.shape == (32, 9)
    for row in rows:
        model = loaded.model.on(ide.Mesh(horizon=row["horizon"]))
        loss = eqx.filter_jit(task.loss)(model, batch).loss
        assert float(loss) == pytest.approx(row["loss"], rel=1e-5)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert "known here are loss, accuracy, exact_match" in run_here(
        *(capsys, "evaluate.py", run.path, "--mesh", "intervals=2", "--samples", 8),
        *("--measure", "perplexity", "--figure", tmp_path / "no.png"),
        expected=2,
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.options.held_out_lengths=[5,8]",
            r"model\.context=5 is too short: an instance of length 8 .* Set model\.context=9",
        ),
        ("data.options.held_out_length=[5,8]", "no such option. Did you mean held_out_lengths"),
        ("data.options.held_out_lengths=[8,5]", r"shortest comes first; write \[5, 8\]"),
        ("model.context=0", r"model\.context=0: Input should be greater than 0"),
        ("data.name=addition", r"data\.name: the weights are given; only solver"),
        ("control.kind=tied", r"control\.kind: the weights are given"),
    ],
)
def test_choices_that_do_not_fit_are_refused(run, override, message):
    with pytest.raises(ide.InputError, match=message):
        training.load_model(run.path, [override])


@pytest.mark.heavy
def test_weights_that_depend_on_the_data_or_the_context_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    settings = config(options={}, context=4)
    words = settings.data.model_copy(
        update={"name": "word_problem", "options": {"lengths": [1, 4], "degree": 2}}
    )
    run = training.train(settings.model_copy(update={"data": words}), runs=tmp_path)
    with pytest.raises(ide.InputError, match=r"vocabulary=6.* trained for vocabulary=2"):
        training.load_model(run.path, ["data.options.degree=3"])
    with pytest.raises(ide.InputError, match=r"model\.context=9: .* embedding of its 4 pos"):
        training.load_model(run.path, ["model.context=9"])
