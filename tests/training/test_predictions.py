"""Predictions: functions, whose outputs are inputs again, and translations of verses."""

import functools as ft
import json
import sys
from pathlib import Path
from unittest.mock import Mock

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib, figures, tasks, training
from ide_transformer.contrib import verses
from ide_transformer.training.measure import predictions
from tests.helpers import built
from tests.running import run_here
from tests.tasks.files import darcy_folder
from tests.training import stub


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of the figures; the outputs of all models are half of their inputs."""
    found = []
    monkeypatch.setattr(figures, "plot_fields", lambda *arguments, **_: found.append(arguments))
    monkeypatch.setattr(predictions, "_outputs", lambda _, x: getattr(x, "values", x) / 2)
    return found


def loaded(monkeypatch, task, points):
    """A model of functions in the plane, as from a run on this task."""
    key = jax.random.key(0)
    linear = built(lambda: (ide.Linear(9, 4, bias=True, key=key), ide.Linear(4, 1, key=key)))
    model = ide.Model(
        ide.models.FunctionInputs(points, linear[0], modes=2),
        ide.Tied((ide.Damping(jnp.zeros(4)),), 1),
        ide.Free(),
        ide.Mesh(solver=ide.LieTrotter()),
        ide.models.FunctionValues(linear[1]),
    )
    monkeypatch.setattr(predictions, "evaluation_task", lambda *_: task)
    return training.LoadedModel(model, None, Path("here"))


def test_classes_at_points_are_no_functions(monkeypatch):
    model = loaded(monkeypatch, contrib.Maze(5), (9, 9))
    with pytest.raises(ide.InputError, match="logits of classes, not functions"):
        training.draw_predictions(model, Path("picture"))


def test_outputs_are_inputs_again(monkeypatch, drawn):
    """A flow that halves its functions has no error; one that keeps them has all of it."""
    truth = np.random.default_rng(0).normal(size=(2, 8, 8))
    path = np.stack([truth, truth / 2, truth / 4, truth / 4])
    task = object.__new__(tasks.FlowMapTask)
    task.flow, task.context = tasks.NavierStokesFlow(0.5, 1e-3), 8
    task.held_out_samples, task.unrolled = 2, 2
    monkeypatch.setattr(tasks.FlowMapTask, "trajectory", lambda *given: path[:, : given[2]])
    model = loaded(monkeypatch, task, (8, 8))
    rows = training.rollout_errors(model, 3, path=Path("picture"))
    assert [row["time"] for row in rows] == [0.5, 1.0, 1.5]
    np.testing.assert_allclose([row["error"] for row in rows], [0, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose([row["unchanged"] for row in rows], [1, 3, 3], rtol=1e-5)
    np.testing.assert_allclose([row["spectrum"] for row in rows], [0, 0, 0.75], atol=1e-6)
    ((_, points, samples),) = drawn
    np.testing.assert_allclose(
        samples["sample 2"]["prediction"], truth[1].ravel() / 8, rtol=1e-6
    )
    np.testing.assert_allclose(points[9], [1 / 8, 1 / 8])
    # Of a task of several steps the first is drawn.
    task.data = {
        "test": tasks.flows.Functions(path[:2].reshape(4, 8, 8), path[1:3].reshape(4, 8, 8))
    }
    monkeypatch.setattr(predictions, "checked_part", lambda task, part: part)
    training.draw_predictions(model, Path("picture"), 2)
    np.testing.assert_allclose(drawn[1][2]["sample 1"]["truth"], truth[0].ravel() / 2)


def test_predictions_are_drawn_at_their_points(monkeypatch, drawn, tmp_path):
    parts = darcy_folder(tmp_path)
    task = contrib.Darcy(tmp_path, samples=20, points="random", subset=40)
    model = loaded(monkeypatch, task, (16, 16))
    training.draw_predictions(model, Path("picture"), samples=2)
    ((_, points, rows),) = drawn
    at = np.rint(16 * points).astype(int)
    assert len(rows) == 2
    for row, y in zip(rows.values(), parts["test_16"], strict=False):
        np.testing.assert_array_equal(row["truth"], y[at[:, 0], at[:, 1]])
        np.testing.assert_allclose(row["error"], row["input"] / 2 - row["truth"], atol=1e-6)


WORDS = {"sea": "mar", "night": "noche", "wind": "viento", "wide": "ancho", "long": "largo"}


def pairs():
    random = np.random.default_rng(0)
    for number in range(240):
        english = random.choice(list(WORDS), 3 + number % 3).tolist()
        yield f"Book {number // 6}", " ".join(english), " ".join(WORDS[x] for x in english)


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.setattr(verses, "cached_verses", lambda path: list(pairs()))
    operators = ["attention", "cross_attention", "feed_forward"]
    model = {"kind": "translation_model", "layers": 1, "context": 48, "operators": operators}
    data = {"name": "verses_en_es", "path": str(tmp_path), "vocabulary": 270}
    return stub.config(data=data, model=model)


def test_parts_are_whole_chapters_and_texts_come_back(config, tmp_path, monkeypatch):
    """Also those as they are now, in the tokens that a run learned."""
    task = training.build_task(config)
    assert isinstance(task, contrib.VersesEnEs)
    known, sizes = {(english, spanish) for _, english, spanish in pairs()}, {}
    for part in task.parts:
        batches = list(task.held_out(5, part=part))
        sizes[part] = sum(len(b.targets) for b in batches)
        for batch in batches:
            source, text = batch.inputs
            found = zip(task.texts(source.tokens), task.texts(batch.targets), strict=True)
            assert set(found) <= known
            assert (text[:, 0] == task.end).all() and (source.mask.sum(1) > 1).all()
            # What follows a token is what is to be predicted there.
            ahead = batch.targets[:, :-1] != verses.UNCOUNTED
            assert (text[:, 1:] == batch.targets[:, :-1])[ahead].all()
    assert sizes == {"validation": 12, "test": 12} and task.dropped == 0
    short = contrib.VersesEnEs(tmp_path, 20, 270)
    assert short.dropped > 0
    monkeypatch.setattr(verses, "cached_verses", lambda path: [*pairs()][::2])
    found = training.build_task(config, task.tokenizer)
    assert found.tokenizer.vocabulary == task.tokenizer.vocabulary
    assert found.end == task.end and found.fingerprint() != task.fingerprint()


def test_verses_of_both_texts_are_read_once(tmp_path, monkeypatch):
    texts = {
        "engKJV2006eb": {(1, 1): "Now it\n came", (1, 2): "And the name"},
        "spaRV1909eb": {(1, 1): "Y aconteció", (2, 1): "Y tenía Noemi"},
    }
    sword, structure = Mock(), Mock()
    structure.get_books.return_value = {"ot": [Mock(chapter_lengths=[2, 1])]}
    structure.get_books.return_value["ot"][0].name = "Ruth"
    sword.SwordModules.return_value.get_bible_from_module = lambda name: Mock(
        get_structure=lambda: structure,
        get=lambda books, chapters, verses: texts[name].get((*chapters, *verses), ""),
    )
    monkeypatch.setitem(sys.modules, "pysword", Mock())
    monkeypatch.setitem(sys.modules, "pysword.modules", sword)
    monkeypatch.setattr(verses, "require", Mock())
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ide.InputError, match=r"engKJV2006eb\.conf is missing\. Run apt-get"):
        verses.cached_verses(tmp_path)
    for number, name in enumerate(texts):
        (tmp_path / f"mods.d/{name}.conf").parent.mkdir(exist_ok=True)
        (tmp_path / f"mods.d/{name}.conf").write_text(f"[a]\nDataPath=./modules/{number}/\n")
    (tmp_path / "modules/1").mkdir(parents=True)
    (tmp_path / "modules/1/nt.bzz").write_bytes(b"first")
    found = [("Ruth 1", "Now it came", "Y aconteció")]
    assert verses.cached_verses(tmp_path) == verses.cached_verses(tmp_path) == found
    sword.SwordModules.assert_called_once_with(str(tmp_path))
    # Other texts are read; a damaged cache is not.
    (tmp_path / "modules/1/nt.bzz").write_bytes(b"second")
    texts["spaRV1909eb"][1, 2] = "Y el nombre"
    assert len(verses.cached_verses(tmp_path)) == sword.SwordModules.call_count == 2
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes().replace(b"Ruth", b"Rut."))
    with pytest.raises(ide.InputError, match=r"is damaged\. Delete it"):
        verses.cached_verses(tmp_path)


def test_a_translation_sees_no_later_word(config):
    """And all of its source."""
    task = training.build_task(config)
    build = ft.partial(training.build_model, config, task)
    model = built(lambda: build(jax.random.key(0)))
    batch = task.batch(0, 2, seed=0)
    source, text = batch.inputs
    outputs = eqx.filter_jit(
        lambda text, tokens: model(
            batch.inputs._replace(source=source._replace(tokens=tokens), text=text)
        )
    )
    before = np.asarray(outputs(text, source.tokens))
    later = np.where(np.arange(text.shape[1]) < 4, text, 1)
    off = np.abs(outputs(later, source.tokens) - before).max(axis=(0, 2))
    assert off[:4].max() == 0 < off[4:].min()
    off = np.abs(
        outputs(text, np.where(np.arange(text.shape[1]) < 1, 1, source.tokens)) - before
    )
    assert off.max(axis=2).min() > 0


@pytest.mark.heavy
def test_a_run_translates(config, tmp_path, capsys):
    run = training.train(config, runs=tmp_path / "runs")
    assert json.loads(run.summary.read_text())["test_loss"] > 0
    loaded = training.load_model(run.path)
    greedy = training.translated(loaded, samples=6)
    assert len(greedy) == 6
    pytest.importorskip("sacrebleu")
    perfect = [x._replace(written=x.reference) for x in greedy]
    assert training.bleu(perfect)[0] == pytest.approx(100)
    assert "BLEU" in run_here(capsys, "translate", run.path, "--samples", "4")
