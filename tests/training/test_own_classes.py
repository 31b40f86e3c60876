"""Classes of a user, from a file outside of the package, in YAML and in Python."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from helpers import largest
from running import logged, run_here

import ide_transformer as ide
from ide_transformer import training


OWN = {
    "name": "own",
    "data": {"name": "mine:Counting", "options": {"length": 100}},
    "model": {
        "kind": "model",
        "options": {"inputs": "mine:Letters", "read_out": "mine:Doubled"},
        "width": 8,
        "heads": 2,
        "depth": 2,
        "context": 8,
        "activation": "mine:my_activation",
        "operators": [
            "feed_forward",
            {
                "kind": "mine:Twice",
                "options": {"operator": {"kind": "mine:Pull", "options": {"strength": 0.5}}},
            },
        ],
        "normalization": {"kind": "mine:Ball", "options": {"radius": 2.0}},
    },
    "control": {"kind": "mine:Growing"},
    "solver": {"kind": "lie_trotter", "sub_solver": "mine:MyHeun"},
    "optimizer": {"warmup": 1, "learning_rate": 0.01},
    "training": {
        "gradient": "mine:Plain",
        "steps": 4,
        "batch_size": 4,
        "log_every": 1,
        "checkpoint_every": 2,
        "evaluate_samples": 4,
        "sample": 0,
    },
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with `mine.py` and `own.yaml` in it."""
    shutil.copy(Path(__file__).parent / "mine.py", tmp_path)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(OWN))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.fixture
def mine(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    return importlib.import_module("mine")


@pytest.mark.thorough
@pytest.mark.heavy
def test_from_a_file_through_the_scripts(here, capsys, monkeypatch):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    run_here(capsys, "train.py", "own.yaml")
    folder = here / "runs/own"
    whole = logged(folder)
    assert [line["step"] for line in whole if "loss" in line] == [1, 2, 3, 4]
    # Two layers, of two evaluations each.
    assert all(line["field_evaluations"] == 4 for line in whole)
    shutil.rmtree(folder / "checkpoints/4")
    run_here(capsys, "train.py", "own.yaml", "--resume")
    assert logged(folder) == whole

    sampled = run_here(capsys, "sample.py", folder, "--prompt", "123", "--length", 5, "--trust")
    assert sampled.startswith("123")
    measured = run_here(
        capsys, "evaluate.py", folder, "--mesh", "intervals=1,4", "--trust", "--samples", 4
    )
    assert "intervals" in measured and "nan" not in measured
    comparison = {
        "mode": "train",
        "base": "own.yaml",
        "budget": {"unit": "steps", "amount": 2},
        "schemes": {
            "own": {"solver": {"kind": "mine:MyHeun", "options": {"second": 0.75}}},
            "constrained": {
                "model": {"constraint": "mine:Ball", "operators": ["mine:Pull"]},
                "solver": {"kind": "lie_trotter", "sub_solver": "euler"},
            },
        },
    }
    (here / "compare.yaml").write_text(yaml.safe_dump(comparison))
    output = run_here(capsys, "compare.py", "compare.yaml", "--runs", "compared")
    assert "own" in output
    report = json.loads((here / "compared/compare/report.json").read_text())
    assert {row["scheme"] for row in report["rows"]} == {"own", "constrained"}


def test_from_python(mine):
    block = (mine.Pull(4, strength=2.0), mine.Twice(mine.Pull(4)))
    control = mine.Growing.build(lambda key: block, 2, key=jax.random.key(0))
    u0 = jnp.full((3, 4), 0.5)
    equation = ide.Equation(control, mine.Ball(), ide.TokenDomain.uniform(3))
    options = dict(steps_per_interval=4, gradient=mine.Plain())
    one = ide.solve(equation, u0, solver=mine.MyHeun(), **options).u1
    other = ide.solve(equation, u0, solver=diffrax.Heun(), **options).u1
    assert largest(one, u0) > 0.1
    # `rate` grows with t, so the exact solution is u0 exp(-0.1 (2 + 2) T/2).
    assert largest(one, other) < 1e-12
    assert largest(one, u0 * np.exp(-0.4)) < 1e-3


def test_own_inputs_and_read_out_from_python(mine):
    """A model of them is the sum that is written here, in any number of intervals."""
    control = ide.PiecewiseConstant.build(
        lambda key: (ide.FeedForward(8, key=key),), 2, key=jax.random.key(0)
    )
    model = ide.Model(
        mine.Letters.build(5, 4, 8, key=jax.random.key(1)),
        control,
        ide.Free(),
        ide.Discretization(diffrax.Euler()),
        mine.Doubled(),
    )
    tokens = jnp.array([3, 1, 4])
    u = model.inputs.embedding[tokens]
    for t in (0.0, 1.0):
        u = u + control(t)[0](u, model.domain)
    expected = 2 * ide.LayerNorm().project(u) @ model.inputs.embedding.T
    assert largest(model(tokens), expected) < 1e-12
    written = ide.generate(model, tokens, 2, temperature=0.0)
    assert int(written[3]) == int(jnp.argmax(expected[-1]))
    halved = model.on(ide.Mesh(steps_per_interval=2))
    assert int(halved.solve(tokens).stats["steps"]) == 4


def build(**changes):
    """The model of `own.yaml` with sections changed."""
    tree = {**OWN, **{name: {**OWN[name], **change} for name, change in changes.items()}}
    config = training.Config.model_validate(tree)
    task = training.build_task(config)
    model = training.build_model(config, task, jax.random.key(0))
    return training.with_training(model, config.training)


def operators(*kinds):
    return {"model": {"operators": list(kinds)}}


def pull(**options):
    return operators({"kind": "mine:Pull", "options": options})


def solver(kind, **more):
    return {"solver": {"kind": kind, **more}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            operators("nowhere:Pull"),
            r"model.operators.0=nowhere:Pull: .*named 'nowhere'\. Start the script in",
        ),
        (
            operators("attention", "mine:Pul"),
            r"model.operators.1=mine:Pul: .*mine.py defines no 'Pul'\. Did you mean Pull\?",
        ),
        (solver("mine:Pull"), r"solver.kind=mine:Pull: Pull is no AbstractSolver"),
        (
            solver("strang", sub_solver="mine:Ball"),
            r"solver.sub_solver.kind=mine:Ball: Ball is no AbstractSolver",
        ),
        (solver("mine:number"), r"solver.kind=mine:number: 3 is no AbstractSolver"),
        (
            operators("mine:AbstractPush"),
            r"AbstractPush is abstract; it has to define __call__, push",
        ),
        ({"control": {"kind": "mine:Unbuilt"}}, r"Unbuilt has no class method build\("),
        (
            {"data": {"name": "mine:MyHeun"}},
            r"data.name=mine:MyHeun: MyHeun is no AbstractTask",
        ),
        (
            {"training": {"gradient": "mine:Ball"}},
            r"training.gradient.kind=mine:Ball: Ball is no",
        ),
        ({"model": {"constraint": "mine:Pull"}}, r"model.constraint=mine:Pull: Pull is no"),
        ({"model": {"kind": "mine:Pull"}}, r"model.kind=mine:Pull: Pull is no function that"),
        ({"model": {"activation": "mine:number"}}, r"it is a int, not a function"),
        (
            pull(strengh=1.0),
            r"model.operators.0.options.strengh: mine:Pull has no such option\. Did you mean "
            r"strength\? Known here: features, normalization, strength, times",
        ),
        (
            pull(times="3"),
            r"model.operators.0.options.times='3': Input should be a valid integer",
        ),
        (pull(strength=True), r"options.strength=True: Input should be a valid number"),
        (
            pull(normalization="layr_norm"),
            r"options.normalization=layr_norm: unknown. Did you mean layer_norm\?",
        ),
        (pull(normalization=3), r"options.normalization: Input should be a valid"),
        (
            operators("mine:Twice"),
            r"model.operators.0: mine:Twice needs operator; give model.operators.0.options.op",
        ),
        (
            {"data": {"options": {"length": "many"}}},
            r"data.options.length='many': Input should be a valid integer",
        ),
        ({"data": {"path": "a.txt"}}, r"data.path: mine:Counting has no such option"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(mine, changes, message):
    with pytest.raises(ide.InputError, match=message) as error:
        build(**changes)
    assert "\n" not in str(error.value)


def test_a_module_that_cannot_be_imported(mine, here):
    (here / "broken.py").write_text("import a_package_that_is_not_there")
    (here / "worse.py").write_text("1 +")
    with pytest.raises(ide.InputError, match=r"importing broken failed.*a_package_that"):
        build(**operators("broken:A"))
    with pytest.raises(ide.InputError, match="importing worse failed with SyntaxError"):
        build(**operators("worse:A"))
