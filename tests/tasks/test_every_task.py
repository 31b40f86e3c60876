"""Every task, found by class, does what training relies on; and what does not is found."""

import re

import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.contrib import public
from ide_transformer.tasks import flows
from ide_transformer.tasks.task import in_parts
from ide_transformer.testing import check_task
from ide_transformer.training.setup import setup
from ide_transformer.training.steps.build import build_task, task_class
from tests.conformance.tasks import TaskConformance
from tests.helpers import classes_of
from tests.tasks.files import darcy_folder, write_idx
from tests.training.stub import read_config
from tests.typed.public_face import Counting


RANDOM = np.random.default_rng(0)
WORDS = RANDOM.integers(97, 123, (400, 4), np.uint8)
TEXT = " ".join(x.tobytes().decode() for x in WORDS)


def of(name, model=None, options=None, **data):
    """A tree of the configuration of a run."""
    small = {"width": 4, "heads": 1, "layers": 1, "context": 8, "operators": ["damping"]}
    data = {"name": name, **data, "options": options or {}}
    return {"data": data, "model": small | (model or {})}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data of all kinds."""
    folder = tmp_path_factory.mktemp("data")
    darcy_folder(folder)
    (folder / "text.txt").write_text(TEXT)
    values = RANDOM.normal(size=(80, 8))
    paths = RANDOM.normal(size=(20, 7, 8, 8, 2))
    known = {"times": np.arange(7) * 0.5, "parameters": paths[:, 0, 0, 0]}
    np.savez(folder / "plane.npz", trajectories=paths, **known)
    known = {"u": paths[..., 0, 0], "times": np.arange(7) ** 2, "points": RANDOM.random(8)}
    np.savez(folder / "uneven.npz", **known)
    np.savez(folder / "arrays.npz", inputs=values, targets=values[:, ::-1])
    for part, number in (("train", 40), ("t10k", 20)):
        images = RANDOM.integers(0, 256, (number, 4, 4))
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(number) % 3)

    def solved(flow, sizes, points):
        shape = 9, flow.pairs + 1, *flow.dimension * [points]
        random = np.random.default_rng(0)
        return {x: random.normal(size=shape).astype("f4") for x in sizes}

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDE_TRANSFORMER_CACHE", str(folder / "cache"))
        patch.setattr(flows, "functions", solved)
        patch.setattr("ide_transformer.tasks.task.HELD_OUT", 130)
        yield folder


CLASSES = {"kind": "sequence_classifier", "class_token": True, "context": 12}
FUNCTION = {"kind": "operator_model", "options": {"modes": 2}}
PLANE = {"context": 16}
SUBSET = {"samples": 20, "points": "random", "subset": 8}
UNROLLED = {"unrolled": 2, "pairs": 3, "samples": 3, "held_out_samples": 3}
SEVERAL = {"channels": True, "steps": [1, 2], "unrolled": 3, "pushforward": True}
HALVES = {"validation": 0.2, "test": 0.2}
# Configurations, and the options of their test. Short instances come again in other parts.
CASES = [
    (of("arrays", path="arrays.npz", test=0.2), {}),
    (of("burgers"), {"tokens": 4}),
    (of("burgers_interval", FUNCTION, {"held_out_samples": 70}), {"tokens": 4}),
    (of("column_addition", options={"lengths": [3, 3], "base": 3}), {"shared": 1.0}),
    (of("darcy", PLANE, {"samples": 20}), {"tokens": 8}),
    (of("darcy", PLANE, SUBSET), {}),
    (of("dataset", path="text.txt", **HALVES), {"tokens": 5}),
    (of("digits", {"patch": 2}, {"shift": 1, "flip": True}), {"tokens": 4}),
    (of("exponax", options={"stepper": "Burgers"} | UNROLLED), {"tokens": 4}),
    (of("fashion_mnist", {"patch": 2}, path=".", validation=0.3), {"tokens": 16}),
    (of("maze", options={"side": 5}), {"shared": 1.0, "tokens": 7}),
    (of("mnist", {"patch": 2}, path=".", validation=0.3), {"tokens": 1}),
    (of("navier_stokes"), {"tokens": 4}),
    (of("p_hop", options={"alphabet": 6, "hops": 1}), {}),
    (of("parity", options={"lengths": [1, 6], "start": True}), {"shared": 1.0}),
    (of("text", path="text.txt", **HALVES), {"tokens": 5}),
    (of("trajectories", FUNCTION, SEVERAL, path="plane.npz", **HALVES), {"tokens": 4}),
    (of("trajectories", FUNCTION, {"inputs": "u"}, path="uneven.npz"), {}),
    (of("word_problem", options={"lengths": [1, 8]}), {}),
]


# Functions, beside texts of a user: to compile a loss takes long.
LEARNED = {"burgers_interval"}


def test_every_class_is_there():
    classes = classes_of(ide.AbstractTask, tasks, public).values()
    # Their texts are fetched.
    fetched = {tasks.Shakespeare, tasks.LanguageTask}
    configurable = {x for x in classes if x.configurable} - fetched
    assert configurable == {task_class(read_config(tree)) for tree, _ in CASES}


@pytest.mark.parametrize(
    ("tree", "options"), CASES, ids=lambda x: x.get("data", {}).get("name")
)
def test_a_task_does_what_training_relies_on(folder, monkeypatch, tree, options):
    monkeypatch.chdir(folder)
    config = read_config(tree)
    task, again = build_task(config), build_task(config)
    learned = config.data.name in LEARNED
    model = setup(config, task).model if learned else None
    TaskConformance(task, model, again=again, **options).check()


def test_a_task_of_ones_own():
    """It has five samples, so every part has all five."""
    task = Counting(8)
    model = setup(read_config(of("p_hop")), task).model
    TaskConformance(task, model, shared=1.0, other=Counting(8, top=5)).check()


class OtherTest(Counting):
    """The same but for the test part."""

    def held_out(self, size, samples=None, part="validation"):
        other = Counting(self.context, top=self.top - 1) if part == "test" else super()
        return other.held_out(size, samples, part)


def test_a_fingerprint_is_of_all_parts_and_of_shapes():
    assert Counting(8).fingerprint() != OtherTest(8).fingerprint()
    numbers = np.random.default_rng(0).normal(size=(20, 24))
    line, plane = (tasks.Arrays(*2 * [numbers.reshape(x)]) for x in ((20, 24), (20, 4, 6)))
    assert line.fingerprint() != plane.fingerprint()


@pytest.mark.parametrize("samples", [1, 5, 9, 10, 17, 18])
def test_samples_are_so_many_and_evenly_spread(samples):
    indices = np.concatenate([*in_parts(range(3, 3 + 2 * 17, 2), 4, samples)])
    assert len(indices) == min(samples, 17) and set(indices) <= set(range(3, 37, 2))
    gaps = np.diff([*indices, indices[0] + 2 * 17]) // 2
    assert gaps.max() - gaps.min() <= 1


class Broken(Counting):
    """Another one in a copy, the same batch at each step, and no test part of its own."""

    def __getstate__(self):
        return vars(self) | {"top": 5}

    def batch(self, step, size, seed):
        return super().batch(0, size, seed)

    def held_out(self, size, samples=None, part="validation"):
        return super().held_out(size, samples)


def test_all_that_is_broken_is_said():
    with pytest.raises(AssertionError) as error:
        check_task(Broken(8))
    for fault in ("copies: ", r"batch: .* at \['another step'\]", "apart: .* 1.0, not 0.0"):
        assert re.search(rf"(?m)^Broken, {fault}", str(error.value)), fault
