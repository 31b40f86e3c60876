"""Runs on functions: no accuracy, and figures of the relative error."""

import json

import jax
import pytest
from helpers import ROOT
from running import run_here

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.studies.schemes import load_comparison


SMALL = [
    *("data.options={viscosity: 0.05, time: 0.1, samples: 12, held_out_samples: 5}",),
    *("model.context=16", "model.options={modes: 3}", "model.width=8", "model.heads=2"),
    *("model.depth=2", "optimizer.warmup=2", "training.steps=6", "training.batch_size=4"),
    *("training.evaluate_every=3", "training.checkpoint_every=6", "training.log_every=2"),
]
BURGERS = ROOT / "configs/beds/burgers.yaml"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_the_model_of_a_configuration_is_not_causal():
    config = training.load_config(BURGERS, SMALL)
    task = training.build_task(config)
    model = training.build_model(config, task, jax.random.key(0))
    assert model.inputs.modes == 3 and model.inputs.points == 16
    assert not model.control(0.0)[0].causal


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.options={modes: 8}", "data.name=burgers: model: .*modes=8 .*points=16"),
        (
            "model.kind=language_model",
            "TextInputs and TokenLogits, .*burgers.*write model.kind=operator_model",
        ),
        ("data.options={viscosity: 0}", r"data.options.viscosity=0: .*greater than 0"),
        ("data.options={viscosty: 1}", r"no such option. Did you mean viscosity\?"),
        ("data.options={samples: 0}", r"data.options.samples=0"),
    ],
)
def test_wrong_configurations(change, message):
    small = [x for x in SMALL if x.split("=")[0] != change.split("=")[0]]
    config = training.load_config(BURGERS, [*small, change])
    with pytest.raises(ide.InputError, match=message):
        training.build_model(config, training.build_task(config), jax.random.key(0))


@pytest.mark.heavy
def test_a_run_is_trained_evaluated_and_compared(tmp_path, capsys):
    run = training.train(training.load_config(BURGERS, SMALL), runs=tmp_path / "runs").path
    summary = json.loads((run / "summary.json").read_text())
    assert 0 < summary["validation_loss"] < 2
    assert not any("accuracy" in name for name in summary)
    assert {path.name for path in (run / "plots").iterdir()} == {"loss.png", "state_norm.png"}
    capsys.readouterr()
    output = run_here(capsys, "evaluate.py", run)
    assert output.split() == ["loss:", f"{summary['validation_loss']:.4f}"]
    files = ("--json", tmp_path / "rows.json", "--figure", tmp_path / "depth.png")
    run_here(capsys, "evaluate.py", run, "--mesh", "intervals=1,2", *files)
    rows = json.loads((tmp_path / "rows.json").read_text())
    file = tmp_path / "new/points.json"
    run_here(capsys, "evaluate.py", run, "--mesh", "tokens=16,24", "--json", file)
    points = json.loads(file.read_text())
    assert [row["tokens"] for row in points] == [16, 24]
    assert points[0]["loss"] == pytest.approx(summary["validation_loss"], rel=1e-5)
    # The same functions on other points: nearly the same error.
    assert points[1]["loss"] == pytest.approx(points[0]["loss"], rel=0.05)
    assert points[1]["loss"] != points[0]["loss"]
    assert [list(row) for row in rows] == 2 * [["intervals", "evaluations", "loss"]]
    assert rows[1]["loss"] == pytest.approx(summary["validation_loss"], rel=1e-5)
    assert (tmp_path / "depth.png").exists()
    base = tmp_path / "base.yaml"
    base.write_text(training.dump_config(training.load_config(BURGERS, SMALL)))
    comparison = tmp_path / "small.yaml"
    comparison.write_text(
        f"mode: train\nbase: {base}\nbudget: {{amount: 4}}\nschemes:\n  lie_trotter: {{}}\n"
    )
    report = load_comparison(comparison).compare(tmp_path)
    assert [row["scheme"] for row in report.rows] and "accuracy" not in report.rows[0]
    assert (tmp_path / "small/loss_by_cost.png").exists()
