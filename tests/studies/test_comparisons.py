"""Comparisons by training, whose runs are written as if they had been made."""

import copy
import itertools
import json
import math

import filelock
import jax
import pytest
import yaml
from training.tiny_runs import TEXT, base

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.studies.schemes import budget, load_comparison, trials
from ide_transformer.studies.schemes.training import TrainingComparison


RATE, DRAW = "optimizer.learning_rate", TrainingComparison.draw
RECIPES = {
    "mode": "train",
    "base": "base.yaml",
    "seeds": [0, 1, 2],
    "budget": {"amount": 12},
    "schemes": {"ordinary": {}, "heun": {"solver": "heun", "model": {"depth": 1}}},
    "recipes": {"S1": {"training": {"transport": 0.01}}},
    "reference": "ordinary",
}
LOSSES = {
    "ordinary": (2.0, 2.2, 2.1),
    "heun": (1.9, 2.2, 2.0),
    "ordinary_with_S1": (1.8, 1.9, 1.9),
    "heun_with_S1": (1.8, 1.7, 1.9),
}


class Runs:
    """Writes runs: the loss falls by one a step to that of their name. Heun's method makes two
    evaluations where the others make one, and half as many tokens a second."""

    def __init__(self):
        self.made, self.source = [], "0.1 (abc)"

    def loss(self, config):
        scheme, _, seed = config.name.rpartition("-seed")
        return LOSSES[scheme][int(seed)]

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
        summary = {"steps": steps, "nfe": 2 * cost, "parameters": 7, "seconds": 1.0}
        summary |= {"validation_loss": loss, "test_loss": 2 * loss}
        run.summary.write_text(json.dumps(summary))
        rates = {"tokens_per_second": 9.0 / cost, "field_evaluations": 2 * cost}
        lines = []
        for step in (3, 6, 9, 12):
            lines += [{"step": step, "loss": loss, **rates}]
            lines += [{"step": step, "validation_loss": loss + 12 - step}]
        run.metrics.write_text("\n".join(map(json.dumps, lines)) + "\n")


@pytest.fixture
def runs(monkeypatch):
    runs = Runs()
    monkeypatch.setattr(training, "train", runs.train)
    monkeypatch.setattr(trials.Trials, "_seconds", lambda *_: 1.0)
    monkeypatch.setattr(TrainingComparison, "draw", lambda *_: None)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    for module in (budget, trials):
        monkeypatch.setattr(module, "try_first_batch", lambda *_: None)
    return runs


@pytest.fixture
def compare(runs, tmp_path):
    """Makes a comparison that was changed in some keys, `a/b/c` to their values."""
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base(tmp_path)))

    def make(tree=RECIPES, **changes):
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
def there(tmp_path):
    return tmp_path / "compared/small"


def edit(path, **changes):
    """Changes some keys in a file of JSON."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_recipes_are_compared_with_the_reference_at_equal_cost(compare, runs, there):
    report = compare()
    rows = {row["scheme"]: row for row in report.rows}
    assert [*rows] == ["heun with S1", "ordinary with S1", "heun", "ordinary"]
    differences = [rows[name]["difference"] for name in rows]
    assert differences[:3] == pytest.approx([-0.2 / 3, -0.7 / 3, -0.2 / 3])
    assert differences[3] is None and rows["heun"]["half_width"] > 0
    assert "to ordinary with the same recipe (S1)" in report.about
    # Heun's method has made half of its steps where it has cost as much.
    for name, row in rows.items():
        ahead = 6 if name.startswith("heun") else 0
        for column in ("at_equal_evaluations", "at_equal_time"):
            assert row[column] == pytest.approx(row["validation_loss"] + ahead)
    assert rows["ordinary"]["spread"] == pytest.approx(0.1)
    assert "Field evaluations differ, from 24 to 48" in report.about
    assert json.loads((there / "report.json").read_text())["rows"] == report.rows
    assert (
        "±"
        in load_comparison(there.parents[1] / "small.yaml").shown(report.rows)[0]["difference"]
    )
    # Runs are made once, by one process.
    assert len(runs.made) == 12 and compare() == report and len(runs.made) == 12
    refused = pytest.raises(ide.InputError, match="another process makes this comparison")
    with filelock.FileLock(there / "lock"), refused:
        compare()


SWEEP = {
    **{"mode": "train", "base": "base.yaml", "seeds": [0, 1], "budget": {"amount": 12}},
    "sweep": {"keys": {RATE: [0.1, 0.2, 0.4]}, "extend": 1},
    "schemes": {"ordinary": {}, "heun": {"solver": "heun"}, "failing": {"solver": "rk4"}},
    "reference": "ordinary",
}


def test_what_is_tuned_on_validation_data_is_reported_on_test_data(
    compare, runs, there, monkeypatch, tmp_path
):
    (tmp_path / "base.yaml").write_text(
        yaml.safe_dump({**base(tmp_path), "data": base(tmp_path)["data"] | {"test": 0.1}})
    )

    def loss(config):
        if config.solver.kind == "rk4":
            raise RuntimeError("no memory")
        best = 9.0 if config.solver.kind == "heun" else 0.2
        return 1 + abs(math.log(config.optimizer.learning_rate / best)) + config.training.seed

    runs.loss = loss
    monkeypatch.setattr(TrainingComparison, "draw", DRAW)
    report = compare(SWEEP)
    ordinary, heun, failed = report.rows
    assert (ordinary[RATE], ordinary["at_edge"]) == (0.2, None)
    assert (heun[RATE], heun["at_edge"]) == (0.8, RATE)
    assert ordinary["seeds"] == [2.0, 4.0] and ordinary["test_loss"] == 3.0
    assert failed["scheme"] == "failing" and failed["failure"] == "RuntimeError: no memory"
    assert failed["test_loss"] is None and failed["difference"] is None
    assert "Failed, so without figures: failing." in report.about
    assert "A better value may lie beyond those tried: heun." in report.about
    tried = json.loads((there / "sweep.json").read_text())
    assert [x[RATE] for x in tried if x["scheme"] == "heun"] == [0.1, 0.2, 0.4, 0.8]
    pictures = {path.name for path in there.glob("*.png")}
    assert pictures == {
        f"sweep_{RATE}.png",
        "loss_by_step.png",
        "loss_by_cost.png",
        "differences.png",
    }
    number = len(runs.made)
    assert compare(SWEEP) == report and len(runs.made) == number


@pytest.mark.parametrize(
    ("key", "value", "change"),
    [
        ("budget/amount", 16, "training.steps: 12 there, 16 here"),
        ("schemes/heun/model", {"depth": 3}, "model.depth: 1 there, 3 here"),
        ("recipes/S1/training", {"transport": 0.02}, "transport: 0.01 there, 0.02 here"),
    ],
)
def test_a_run_that_was_made_with_another_configuration_is_refused(
    compare, there, key, value, change
):
    compare()
    (there / "report.json").unlink()
    with pytest.raises(ide.InputError, match=f"seed0: this run .*{change}.* another name"):
        compare(**{key: value})
    assert not (there / "report.json").exists()
    # Not by what does not change its numbers.
    assert len(compare(**{"schemes/heun/parallel": {"timeout": 200}}).rows) == 4


def test_runs_on_other_data_are_refused_and_other_code_is_named(
    compare, runs, there, tmp_path, monkeypatch
):
    refusal = r"this run was made with other data \(its data changed since\)"
    text, other = tmp_path / "text.txt", TEXT.replace("wide", "cold")
    assert "Code: 0.1 (abc)." in compare().about
    text.write_text(other)
    with pytest.raises(ide.InputError, match=refusal):
        compare()
    text.write_text(TEXT)
    runs.source = "0.2 (def)"
    (there / "runs/ordinary-seed1").rename(tmp_path / "elsewhere")
    about = compare().about
    assert "What is compared was made by different code: 0.1 (abc): " in about
    assert about.split("0.2 (def): ")[1].startswith("ordinary-seed1.")

    # Also where they change meanwhile.
    def changing(*given, **named):
        text.write_text(other)
        runs.train(*given, **named)

    monkeypatch.setattr(training, "train", changing)
    (there / "runs/ordinary-seed1").rename(tmp_path / "again")
    with pytest.raises(ide.InputError, match="ordinary-seed1: " + refusal):
        compare()


def test_a_failure_is_that_of_its_configuration_and_data(compare, runs, there):
    runs.loss = lambda config: 1 / (config.name != "heun-seed1")
    *_, row = compare().rows
    assert row["scheme"] == "heun" and row["failure"].startswith("ZeroDivisionError")
    file = there / "runs/heun-seed1.failed.json"
    kept = json.loads(file.read_text())
    tree = copy.deepcopy(kept["configuration"])
    tree["optimizer"]["learning_rate"] = 0.5
    edit(file, configuration=tree)
    with pytest.raises(ide.InputError, match=r"heun-seed1.failed.json: .*learning_rate: 0.5"):
        compare()
    edit(file, configuration=kept["configuration"], data="others")
    with pytest.raises(
        ide.InputError, match=r"failed\.json: this run was made with other data"
    ):
        compare()


def test_losses_that_are_not_finite_or_zero(compare, there):
    compare()
    log = there / "runs/ordinary-seed0/metrics.jsonl"
    lines = log.read_text().replace('"validation_loss": 11.0', '"validation_loss": null')
    log.write_text(lines)
    for seed in range(3):
        edit(there / f"runs/heun_with_S1-seed{seed}/summary.json", validation_loss=0.0)
    edit(there / "runs/heun-seed1/summary.json", validation_perplexity=math.inf)
    for last in (math.nan, math.inf, None):
        edit(there / "runs/heun-seed1/summary.json", validation_loss=last)
        best, *_, failed = (report := compare()).rows
        assert best["scheme"] == "heun with S1" and best["validation_loss"] == 0
        assert failed["scheme"] == "heun" and "is not finite" in failed["failure"]
        assert failed["validation_loss"] is None and failed["difference"] is None
        assert "Failed, so without figures: heun." in report.about
    written = (there / "report.json").read_text()
    assert "NaN" not in written and "Infinity" not in written
    (ordinary,) = (row for row in report.rows if row["scheme"] == "ordinary")
    assert ordinary["at_equal_time"] == pytest.approx(2.1)
    damaged = there / "runs/heun-seed1/summary.json"
    for content in (b"", b"[1]"):
        damaged.write_bytes(content)
        with pytest.raises(ide.InputError, match=r"heun-seed1/summary\.json is damaged; rest"):
            compare()
        assert damaged.read_bytes() == content


def test_the_time_of_a_scheme_is_that_of_its_own_samples(compare, monkeypatch):
    """With twice the context a step has twice the tokens, and takes twice the time at the same
    rate: it has made half of its steps when the other has made all."""
    monkeypatch.setitem(LOSSES, "long", LOSSES["heun"])
    schemes = {"ordinary": {}, "long": {"model": {"context": 16}}}
    report = compare(schemes=schemes, recipes={})
    rows = {row["scheme"]: row for row in report.rows}
    assert rows["long"]["at_equal_time"] == pytest.approx(rows["long"]["validation_loss"] + 6)
    assert "losses are on other samples: long." in report.about


def test_names_of_recipes_and_schemes_are_no_other(compare):
    with pytest.raises(ide.InputError, match="would share a folder"):
        compare(**{"schemes/ordinary with S1": {}})
    with pytest.raises(ide.InputError, match=r"schemes\.ordinary with S1: .*transprt"):
        compare(**{"recipes/S1": {"training": {"transprt": 0.01}}})


def test_steps_that_are_measured_are_kept(compare, runs, there, monkeypatch):
    """Each measurement gives another time; runs that go on keep their steps."""
    seconds = itertools.count(1)
    monkeypatch.setattr(budget, "seconds_of_a_run", lambda *_: float(next(seconds)))

    def stop(config, **_):
        raise ide.InputError(f"stopped after {config.training.steps} steps")

    monkeypatch.setattr(training, "train", stop)

    def steps(amount, depth=2):
        schemes = {"one": {}, "two": {"model": {"depth": depth}}}
        tree = {"mode": "train", "base": "base.yaml", "schemes": schemes}
        with pytest.raises(ide.InputError, match="stopped") as stopped:
            compare(tree, budget={"unit": "seconds", "amount": amount})
        kept = json.loads((there / "steps.json").read_text())
        return stopped.value.args[0], sorted(kept.values())

    assert steps(12.0) == ("stopped after 240 steps", [120, 240])
    assert steps(12.0) == ("stopped after 240 steps", [120, 240])
    assert steps(12.0, depth=3) == ("stopped after 240 steps", [80, 120, 240])
    assert steps(24.0)[0] == "stopped after 120 steps"
