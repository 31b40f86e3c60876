"""Every recipe of configs/, and every contender of its comparisons, is built from shapes; the
loss of each recipe is traced, and one of each kind trains for two steps."""

import contextlib
import functools as ft

import jax
import numpy as np
import pytest

from ide_transformer import training
from ide_transformer.compare import load_comparison
from ide_transformer.compare.budget import Budget
from ide_transformer.compare.solve_schemes import SolvingComparison
from ide_transformer.tasks import AbstractTask, flows
from ide_transformer.training.setup import setup
from ide_transformer.training.steps.build import build_model_of_size
from ide_transformer.training.steps.layout import make_layout
from tests.helpers import ROOT, built
from tests.tasks.files import darcy_folder, write_idx, write_trajectories
from tests.training.stub import TEXT, draw_model


CONFIGS = ROOT / "configs"
COMPARISONS = sorted(CONFIGS.glob("compare/*.yaml"))
RECIPES = sorted({*CONFIGS.rglob("*.yaml")} - {*COMPARISONS})
RANDOM = np.random.default_rng(0)


def name_of(path):
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory):
    """A folder with small files in place of those that recipes read, and random functions in
    place of solutions."""
    folder = tmp_path_factory.mktemp("data")
    darcy_folder(folder, samples=1000)
    for part in ("train", "t10k"):
        images = RANDOM.integers(0, 256, (64, 28, 28))
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(64) % 10)
    (folder / "packages.txt").write_text(TEXT * 10)
    write_trajectories(folder / "trajectories.nc", samples=20, points=64)

    def solved(flow, sizes, points):
        shape = 9, flow.pairs + 1, *flow.dimension * [points]
        return {part: RANDOM.normal(size=shape).astype("f4") for part in sizes}

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr(flows, "functions", solved)
        # Few samples of tasks that draw theirs.
        patch.setattr("ide_transformer.tasks.task.HELD_OUT", 8)
        patch.setattr("ide_transformer.tasks.task._COMPARED", 64)
        yield


def on_files(config):
    changes = {
        "darcy": {"path": "."},
        "fashion_mnist": {"path": "."},
        "dataset": {"vocabulary": 300, "validation": 0.1, "test": 0.1},
    }
    return config.changed("data", **changes.get(config.data.name, {}))


def build_phases(config, task, filled=lambda build: build()):
    def build_model(config, task, key, layers=None):
        build = ft.partial(build_model_of_size, config, task.sizes, key, layers)
        # Iteration has to find the fixed point of its own weights.
        needs_own_weights = config.model.pretrained or "steady_state" in config.solver.kind
        return build() if needs_own_weights else filled(build)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ide_transformer.training.setup.build_model", build_model)
        start = setup(config, task)
        phases = start.phases
    return phases, phases.start(start.model, start.key)


# What is built of a model that a recipe or contender before has had too.
BUILT = set()


def check_built(config, task):
    tree = config.as_tree()
    parts = str(
        [
            task.sizes,
            *(tree[x] for x in ("model", "control", "solver", "optimizer", "training")),
        ]
    )
    if parts in BUILT:
        return
    BUILT.add(parts)

    def build():
        for phase in build_phases(config, task)[0]:
            for mesh in phase.meshes:
                mesh.adapt_model(phase.model)

    jax.eval_shape(build)
    for meshes in training.scheduled_meshes(config):
        for mesh in meshes:
            mesh.adapt_task(task)


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_says_how_it_is_run_and_is_built(path, tmp_path):
    config = training.load_config(path)
    assert config.name == path.stem
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    name = name_of(path)
    assert any(name in line for line in head)
    dumped = training.dump_config(config)
    assert dumped.startswith("version: 3\n")
    (tmp_path / "dumped.yaml").write_text(dumped)
    assert training.load_config(tmp_path / "dumped.yaml") == config
    # The weights of a checkpoint are read, not drawn: the heavy test starts from it.
    if config.model.pretrained is None:
        config = on_files(config)
        check_built(config, training.build_task(config))


# One of each kind of data, model, gradient and scheme: tests/published/ solves the others.
TRAINED = {
    *("quick", "any_depth", "growth", "finetune_glassllm", "digits_vit", "fashion_mnist_cvt"),
    *("burgers_slices", "darcy", "navier_stokes", "shakespeare_reversible"),
    *("emulators/split_2d", "emulators/flux", "emulators/waves", "reasoning/maze"),
    *("reasoning/parity", "reasoning/v_cycle", "schemes/deep_equilibrium"),
    *("schemes/diffeqformer", "schemes/yuriiformer"),
}


@pytest.mark.heavy
@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_trains(path, monkeypatch):
    """Each phase, on the first of its meshes. Of the others the loss is traced."""
    config = on_files(training.load_config(path))
    config = config.changed("training", batch_size=2, accumulate=1)
    if name_of(path) not in TRAINED:
        monkeypatch.setattr("ide_transformer.training.setup.build_model", draw_model)
        setup(config).check_shapes()
        return
    task = training.build_task(config)
    layout = make_layout(config.parallel)
    phases, state = build_phases(config, task, ft.partial(built, std=0.02))
    with jax.set_mesh(layout.devices):
        for phase in phases:
            state = layout.place(state if phase.enter is None else phase.enter(state))
            mesh = phase.meshes[0]
            batch = mesh.adapt_task(task).batch(0, 2, config.training.seed)
            step = phase.lower(mesh, task.loss, layout, batch).compile()
            for _ in range(2):
                state, metrics = step(state, batch)
            assert np.isfinite(metrics["loss"]) and not metrics["bad_steps"]


@pytest.mark.parametrize("path", COMPARISONS, ids=name_of)
def test_each_contender_of_a_comparison_is_built(path, monkeypatch):
    comparison = load_comparison(path)
    assert f"ide-transformer compare {name_of(path)}" in path.read_text()
    if isinstance(comparison, SolvingComparison):
        config = training.load_config(CONFIGS / f"{comparison.run.name}.yaml")
        task = training.build_task(config)
        for scheme in comparison.schemes.values():
            solver = next(iter(scheme.settings.values()))
            check_built(config.replace(solver=solver), task)
        return

    def steps(budget, config, task):
        check_built(config, task)
        return 10**6

    monkeypatch.setattr(Budget, "steps", steps)
    # It would draw large mazes.
    monkeypatch.setattr(AbstractTask, "fingerprint", lambda self: "")
    build_task = training.build_task
    monkeypatch.setattr(training, "build_task", lambda config: build_task(on_files(config)))
    comparison.prepare()
