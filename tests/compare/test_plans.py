"""The runs of a comparison: the steps of its budget, and what it refuses before anything is
measured or written."""

import pytest

import ide_transformer as ide
from ide_transformer.compare import budget
from ide_transformer.compare.budget import advice, plan_refinement
from ide_transformer.training import mesh_drawer
from ide_transformer.training.steps import build
from ide_transformer.training.steps.schedule import overrides_for_refinement
from tests.training import stub


RATE = "optimizer.learning_rate"
SCHEDULE = "optimizer.schedule=warmup_stable_decay"
RECIPE = ["model.input_normalization=sphere", "training.costs.transport=0.01"]


def text_config(folder, overrides):
    return stub.config(*overrides, **stub.tree_of_text(folder))


def test_the_cost_of_a_step_is_the_mean_over_its_meshes(tmp_path):
    schedule = "[{meshes: [{steps: 1}, {steps: 4, tokens: 4}], weights: [1.0, 3.0]}]"
    small = ["model.layers=1", "model.operators=[damping]"]
    config = text_config(tmp_path, [f"training.schedule={schedule}", *small])
    spent = budget.Budget(unit="field_evaluations", amount=(110.0,))
    draw_mesh = mesh_drawer(config)
    meshes = [draw_mesh(step).mesh for step in range(20)]
    assert len(set(meshes)) == 2
    task = build.build_task(config)
    assert spent.steps(config, task) == round(110 / (sum(mesh.steps for mesh in meshes) / 20))
    tokens = sum(mesh.tokens or 8 for mesh in meshes[:10]) / 10
    assert budget.tokens_of_samples(config, task, 10).mean() == tokens
    options = ["model.layers=2", small[1], f"training.schedule={first(1)}"]
    refined = text_config(tmp_path, options)
    assert budget.cost_of_step(refined, task) == 1.5


def first(layers, until="50%"):
    return f"[{{until: {until}, mesh: {{layers: {layers}}}}}]"


def mean_layers(config, *_):
    """The cost of a step, as if each layer cost an evaluation."""
    meshes = [*map(mesh_drawer(config), range(config.training.steps))]
    return sum(mesh.layers or config.model.layers for mesh in meshes) / len(meshes)


def test_a_plan_has_the_runs_that_a_budget_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "cost_of_step", mean_layers)
    small = ["model.layers=2", "model.operators=[damping]", "optimizer.warmup=0"]
    config = text_config(tmp_path, small)
    rows = plan_refinement(config, 12.0)
    assert [row["field_evaluations"] for row in rows] == [12, 12]
    assert [row["overrides"] for row in rows] == [
        "training.steps=6 training.schedule='[]'",
        f"training.steps=8 training.schedule='{first(1)}' {SCHEDULE} {' '.join(RECIPE)}",
    ]
    assert "one layer first" in advice(config)
    monkeypatch.setattr(budget, "cost_of_step", lambda *_: 4.0)
    deep = text_config(tmp_path, ["model.layers=8", *small[1:]])
    rows = plan_refinement(deep, 216.0)
    _, one_layer, two_layers, doublings = (row["overrides"] for row in rows)
    assert first(1) in one_layer and first(2) in two_layers
    ends = ", ".join(first(n, f"{x}%")[1:-1] for n, x in ((1, 60), (2, 78), (4, 92)))
    assert doublings.startswith(f"training.steps=54 training.schedule='[{ends}]'")
    assert "doublings of one layer" in advice(deep)
    other = text_config(tmp_path, ["model.kind=sequence_classifier"])
    assert "has no sequence_classifier" in advice(other)
    drawn = text_config(tmp_path, [*small, "training.schedule=[{meshes: [{layers: 2}]}]"])
    with pytest.raises(ide.InputError, match="draws meshes"):
        plan_refinement(drawn, 20.0)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], RECIPE),
        ([RECIPE[0]], RECIPE[1:]),
        (["training.costs={short: {kind: transport, weight: 0.1}}"], RECIPE[:1]),
        (["training.costs.transport=0"], RECIPE),
        # It projects the embedded input too.
        (["model.constraint=sphere"], RECIPE[1:]),
        # The schedule is the default with a refinement, unless another one is given.
        (["optimizer.schedule=cosine", *RECIPE], [SCHEDULE]),
        # Layers that keep their step size.
        (["training.growth=stacked"], []),
        # A coarse mesh in tokens alone, and none.
        (["training.schedule=[{until: 10, mesh: {tokens: 4}}]"], []),
        (["training.schedule=[]"], []),
    ],
)
def test_what_a_coarse_mesh_first_needs(tmp_path, overrides, expected):
    refined = [f"training.schedule={first(1, 10)}"] * (
        "training.schedule" not in str(overrides)
    )
    assert overrides_for_refinement(text_config(tmp_path, [*refined, *overrides])) == expected


TRAIN = {"mode": "train", "base": "base.yaml", "budget": {"amount": 12}}
TRAIN["schemes"] = {"one": {"solver": "rk4"}}


def swept(values, key=RATE):
    return {"sweep": {"keys": {key: values}}}


WRONG = {"one": {"model": {"width": "8"}}}
COSTS = {"unit": "field_evaluations", "amount": 48}
LATE = {"training": {"schedule": [{"until": 2, "mesh": {"layers": 1}}]}}
HEADS = {"model": {"operators": ["attention"], "heads": 3}}
POSITIONS = {"model": {"positions": "no_positions"}}
LONGER = {"far": {"context": 16, "part": "validation"}}
NO_TEXT = {"a": {"data": {"path": "none.txt"}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]"),
        ({"reference": "two"}, "reference='two' .*one"),
        ({"schemes": WRONG}, r"small.yaml:8: schemes\.one\.model\.width='8'"),
        ({"schemes/one": {"training": {"steps": 3}}}, "one.training.steps: .*budget.amount"),
        ({"recipes": {"two": {"training": {"seed": 3}}}}, "two.training.seed: .*seeds"),
        ({"schemes": {"a b": {}, "a_b": {}}}, "a b, a_b"),
        (swept([0.0010001, 0.0010002]), "folder"),
        (swept([4, 8], "training.steps"), "training.steps"),
        (swept([1, 2], "training.seed"), "training.seed"),
        ({"budget": COSTS, "schemes/one": LATE}, "schemes.one.training.schedule: until=2"),
        ({"schemes/one": HEADS}, "schemes.one.model.operators.0: .*heads"),
        ({"schemes/one": POSITIONS, "tests": LONGER}, "tests.far: .*learned 8 positions"),
        ({"schemes": NO_TEXT}, "schemes.a.data: .*none.txt"),
    ],
)
def test_a_wrong_comparison_is_refused(compare, tmp_path, changes, message):
    with pytest.raises(ide.InputError, match=message):
        compare(TRAIN, **changes)
    assert not (tmp_path / "compared").exists()


def test_operations_grow_with_the_tokens_of_a_mesh(tmp_path):
    tree = stub.tree_of_text(tmp_path)
    operators = [{"kind": "feed_forward", "options": {"hidden": 5}}]
    tree["model"] |= {"layers": 3, "operators": operators, "normalization": "free"}
    costs = {}
    for tokens in (8, 4):
        coarse = stub.config(f"training.schedule=[{{mesh: {{tokens: {tokens}}}}}]", **tree)
        costs[tokens] = budget.cost_of_step(coarse, build.build_task(coarse), "flops")
    products = 3 * 8 * 8 * 2 * 2 * 16 * 5
    assert costs[8] == pytest.approx(2 * costs[4], rel=0.01)
    assert 1 < costs[8] / products < 1.5
